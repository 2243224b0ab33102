"""Outcomes on disk, one line of JSON each as it comes, so that a long evaluation may be stopped and goes on.

The first line says what is evaluated; a file of another evaluation is not continued.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sanawm_env.evaluate.rollouts import Outcome
from world_model.errors import InputError

FORMAT = "sanawm-evaluation"
VERSION = 1


class Record:
    """The file of an evaluation. about: JSON values that tell this evaluation from others. Raises InputError."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, json.loads(json.dumps(about))
        header = json.dumps({"format": FORMAT, "version": VERSION, "about": about}, sort_keys=True)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(header + "\n", encoding="utf-8")
        text = path.read_text(encoding="utf-8")
        complete = text[: text.rfind("\n") + 1]  # a line that was cut off is an episode to play again
        if complete != text:
            path.write_text(complete, encoding="utf-8")
        first, *self._lines = complete.splitlines() or [""]
        if first != header:
            raise InputError(f"{path}: expected an evaluation of {header}, got {first}; choose another folder")

    def outcomes(self, world: str) -> list[Outcome]:
        """What is known of a world."""
        return outcomes_of(self._lines, world)

    def add(self, world: str, outcome: Outcome) -> None:
        """Write one more."""
        line = json.dumps({"world": world, "outcome": dataclasses.asdict(outcome)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._lines.append(line)

    def take_over(self, path: Path, worlds: Sequence[str], essence: Callable[[dict[str, Any]], Any]) -> None:
        """Copy what another record knows of those `worlds` of which this one knows nothing yet.

        essence: what of `about` those worlds depend on. Raises InputError where it is another, or where nothing is.
        """
        if not path.exists():
            raise InputError(f"{path}: expected the record of an evaluation, found no such file")
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        wanted, got = essence(self.about), essence(json.loads(first)["about"])
        if wanted != got:
            raise InputError(f"{path}: expected an evaluation of {wanted}, got {got}")
        for world in worlds:
            if not self.outcomes(world):
                for outcome in outcomes_of(lines, world):
                    self.add(world, outcome)


def read_outcomes(path: Path, world: str) -> list[Outcome]:
    """What an evaluation that has ended knows of a world."""
    return outcomes_of(path.read_text(encoding="utf-8").splitlines()[1:], world)


def outcomes_of(lines: Sequence[str], world: str) -> list[Outcome]:
    entries = [json.loads(line) for line in lines]
    return [
        Outcome(**(entry["outcome"] | {"goal": tuple(entry["outcome"]["goal"])}))
        for entry in entries
        if entry["world"] == world
    ]
