"""The program `sanawm`: finds a sub-command and starts it, and knows nothing of what any of them does.

Sub-commands are entry points of the group `sanawm.commands` (pyproject.toml). Only the one that is called
is imported; the list with its descriptions is read from source text, so `sanawm --help` loads no torch.
"""

import ast
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from pathlib import Path

from world_model.errors import SanaWMError

GROUP = "sanawm.commands"
USAGE = "usage: sanawm COMMAND [options]        sanawm COMMAND --help        sanawm --version"


def commands() -> dict[str, EntryPoint]:
    """Installed sub-commands by name, in alphabetical order."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def describe(entry: EntryPoint) -> str:
    """First sentence of the docstring of the command's module, without importing that module."""
    try:
        spec = find_spec(entry.module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        return f"(not in this installation: {entry.module})"
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    summary = " ".join(docstring.split("\n\n")[0].split())
    return summary.split(". ")[0].removesuffix(".")


def overview(available: dict[str, EntryPoint]) -> str:
    """What `sanawm --help` prints."""
    if not available:
        return f"{USAGE}\n\nNo commands: the distribution sanawm-env is not installed (pip install -e .)."
    width = max(len(name) for name in available)
    lines = [f"  {name:<{width}}  {describe(entry)}" for name, entry in available.items()]
    return "\n".join([USAGE, "", "commands:", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sanawm COMMAND ...` and return its exit status: 1 for bad input, 2 for an unknown command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    available = commands()
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(overview(available))
        return 0
    if arguments[0] == "--version":
        print(f"sanawm {version('sanawm-env')}")
        return 0
    name, *rest = arguments
    if name not in available:
        known = ", ".join(available) or "none, since sanawm-env is not installed"
        print(f"sanawm: expected one of the commands {known}; got {name!r}", file=sys.stderr)
        return 2
    sys.argv = [f"sanawm {name}", *rest]  # what the command's own parser reads, and its usage line names
    try:
        return available[name].load()() or 0
    except SanaWMError as error:
        print(f"sanawm {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
