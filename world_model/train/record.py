"""What a run leaves for people: `log.jsonl`, `pictures/*.png`, and a board where one is asked for."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from world_model.pictures import png
from world_model.train import snapshot
from world_model.train.board import open_board

log = logging.getLogger(__name__)


class Record:
    """The log of the run in `out`, which goes on from `step`.

    recent: the figures of the steps since the log's last line. A run that resumes hands them in again, so that the log
    of a killed run has the same lines as that of one that never stopped; what was logged after `step` is dropped.
    """

    def __init__(self, out: Path, *, every: int, board: str, step: int, recent: list[dict[str, float]]) -> None:
        self.out, self.every, self.recent = out, every, recent
        self.board = open_board(board, out / "board", step)
        cut_log(out / "log.jsonl", step)

    def add(self, step: int, seconds: float, values: Mapping[str, float]) -> dict[str, float] | None:
        """The figures of a step; every so many steps their means become a line of the log, and are returned."""
        self.recent.append(dict(values))
        if step % self.every:
            return None
        # a snapshot of an earlier version may lack some
        found = {name: [each[name] for each in self.recent if name in each] for name in values}
        means = {name: sum(column) / len(column) for name, column in found.items()}
        self.recent.clear()
        self._write(step, seconds, means)
        self.board.scalars(step, means)
        return means

    def held_out(
        self, step: int, seconds: float, numbers: Mapping[str, float], pictures: Mapping[str, np.ndarray]
    ) -> None:
        """A validation: a line of its own, and uint8 (H, W, 3) pictures by name."""
        self._write(step, seconds, {f"validation_{name}": number for name, number in numbers.items()})
        for name, picture in pictures.items():
            snapshot.write_file(self.out / "pictures" / f"{name}_{step:08d}.png", png(picture))
        self.board.held_out(step, numbers, pictures)

    def close(self) -> None:
        """Nothing more will come."""
        self.board.close()

    def _write(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 1), **values}) + "\n")


def cut_log(path: Path, step: int) -> None:
    """Drop what a killed run logged after the snapshot that it goes on from, and a line that it did not finish."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            log.warning("%s: dropped half a line", path)
    snapshot.write_file(path, "".join(kept).encode())
