"""Outcomes on disk, one line of JSON each as it comes, so that a long evaluation may be stopped and goes on.

The first line says what is evaluated; a file of another evaluation is not continued.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sanawm_env.evaluate.rollouts import Outcome
from world_model.errors import InputError

FORMAT = "sanawm-evaluation"
VERSION = 1


class Record:
    """The file of an evaluation. about: JSON values that tell this evaluation from others. Raises InputError."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            header = {"format": FORMAT, "version": VERSION, "about": about}
            path.write_text(json.dumps(header, sort_keys=True) + "\n", encoding="utf-8")
        text = path.read_text(encoding="utf-8")
        complete = text[: text.rfind("\n") + 1]  # a line that was cut off is an episode to play again
        if complete != text:
            path.write_text(complete, encoding="utf-8")
        found, self._lines = read_record(path)
        expected = json.loads(json.dumps(about))
        if found != expected:
            raise InputError(f"{path}: expected an evaluation of {expected}, got {found}; choose another folder")

    def outcomes(self, world: str) -> list[Outcome]:
        """What is known of a world."""
        return outcomes_of(self._lines, world)

    def add(self, world: str, outcome: Outcome) -> None:
        """Write one more."""
        line = json.dumps({"world": world, "outcome": dataclasses.asdict(outcome)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._lines.append(line)


def read_record(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What an evaluation is about, and its complete lines, one an outcome. Raises InputError for any other file."""
    if not path.exists():
        raise InputError(f"{path}: expected the record of an evaluation, found no such file")
    first, *lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines() or [""]
    try:
        header = json.loads(first)
    except ValueError:
        header = None
    form = [header.get(key) for key in ("format", "version")] if isinstance(header, dict) else first[:40]
    if not isinstance(header, dict) or form != [FORMAT, VERSION]:
        raise InputError(f"{path}: expected the record of an evaluation, {[FORMAT, VERSION]}, got {form!r}")
    return header["about"], lines


def read_outcomes(path: Path, world: str) -> list[Outcome]:
    """What an evaluation that has ended knows of a world."""
    return outcomes_of(read_record(path)[1], world)


def outcomes_of(lines: Sequence[str], world: str) -> list[Outcome]:
    entries = [json.loads(line) for line in lines]
    return [
        Outcome(**(entry["outcome"] | {"goal": tuple(entry["outcome"]["goal"])}))
        for entry in entries
        if entry["world"] == world
    ]
