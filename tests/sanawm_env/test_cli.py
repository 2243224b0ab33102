"""The program `sanawm`: lists, dispatches, and says what is wrong."""

import ast
import sys
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import pytest

from sanawm_env import cli


def test_every_declared_command_has_a_main_and_a_description() -> None:
    declared = cli.commands()
    assert {"bench", "data", "demo", "endurance", "fidelity"} <= set(declared)
    for name, entry in declared.items():
        spec = find_spec(entry.module)
        assert spec is not None, f"{name}: {entry.module} does not exist"
        assert spec.origin is not None, f"{name}: {entry.module} is no file"
        defined = [node for node in ast.parse(Path(spec.origin).read_text()).body if hasattr(node, "name")]
        assert entry.attr in {node.name for node in defined}, f"{name}: no {entry.attr} in {entry.module}"
        assert 10 < len(cli.describe(entry)) < 110, cli.describe(entry)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["-h"], ["--help"]):
        assert cli.main(argv) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("usage: sanawm")
        assert "\n  demo " in printed


def test_unknown_command_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fly"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "'fly'" in captured.err
    assert ", ".join(cli.commands()) in captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("sanawm 0.")


@pytest.fixture
def one_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """`sanawm probe`, whose module this returns, is the only command."""
    monkeypatch.setattr(sys, "argv", ["untouched"])  # main sets it; restored after the test
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "probe_command", raising=False)
    entry = EntryPoint(name="probe", value="probe_command:main", group=cli.GROUP)
    monkeypatch.setattr(cli, "commands", lambda: {"probe": entry})
    return tmp_path / "probe_command.py"


def test_a_command_reads_its_own_arguments(one_command: Path) -> None:
    one_command.write_text("import sys\ndef main():\n    return len(sys.argv) if sys.argv[1] == '--x' else 0\n")
    assert cli.main(["probe", "--x", "1"]) == 3
    assert sys.argv[0] == "sanawm probe"


def test_a_command_without_a_status_succeeds(one_command: Path) -> None:
    one_command.write_text("def main(): pass\n")
    assert cli.main(["probe"]) == 0


def test_bad_input_ends_with_its_message_and_no_traceback(
    one_command: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_command.write_text(
        "from world_model.errors import InputError\ndef main(): raise InputError('expected a, got b')\n"
    )
    assert cli.main(["probe"]) == 1
    assert capsys.readouterr().err == "sanawm probe: expected a, got b\n"


def test_a_description_is_read_without_running_the_module(one_command: Path) -> None:
    one_command.write_text('"""Probe the\nwater. And more.\n\nDetails."""\nraise SystemExit("was run")\n')
    assert cli.describe(cli.commands()["probe"]) == "Probe the water"
