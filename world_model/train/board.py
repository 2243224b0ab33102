"""A run's figures and pictures where people watch them grow: TensorBoard, when asked for.

python -m world_model.train flow --config FILE.json --run.board tensorboard
tensorboard --logdir runs
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from world_model.errors import BackendError

KINDS = ("", "tensorboard")


class Board(Protocol):
    """What a run shows while it goes on. Nothing that training depends on comes back."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def held_out(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None: ...
    def close(self) -> None: ...


class NoBoard:
    """Shows nothing: log.jsonl and pictures/ hold all of it."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def held_out(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files in `folder`. What an interrupted run showed after `step`, from which it goes on, is hidden.

    Raises BackendError where TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BackendError(
                f"board: expected TensorBoard to be installed (pip install 'sanawm-env[board]'): {error}"
            ) from error
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One curve a name."""
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)

    def held_out(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None:
        """One curve a name, the same as a table, and the sample rollouts (H, W, 3) uint8."""
        for name, value in numbers.items():
            self.writer.add_scalar(f"held_out/{name}", value, step)
        self.writer.add_text("held_out", table(numbers), step)
        for name, picture in pictures.items():
            self.writer.add_image(name, picture, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Write what is still in memory."""
        self.writer.close()


def open_board(kind: str, folder: Path, step: int) -> Board:
    """The board of a kind in KINDS; step: from which the run goes on."""
    return TensorBoard(folder, step) if kind else NoBoard()


def table(numbers: Mapping[str, float]) -> str:
    """Figures as a Markdown table. `psnr_model_1s`, `psnr_model_2s`, ... share a row."""
    rows: dict[str, dict[str, float]] = {}
    for name, value in numbers.items():
        stem, _, column = name.rpartition("_")
        rows.setdefault(stem or name, {})[column if stem else ""] = value
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, row in rows.items():
        cells = (f"{row[column]:.3f}" if column in row else "" for column in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
