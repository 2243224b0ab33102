"""Print a JSON configuration with some values replaced. Standard library only: GPU machines run it.

    python .ci/configure.py FILE run.out=runs/flow run.device=cuda data=a,b

A value is read as JSON where it is JSON (`9`, `true`, `["a", "b"]`) and as text elsewhere. A key must already be
in FILE, so that a misspelt one is an error instead of a setting without effect.
"""

import json
import sys
from pathlib import Path


def replace(configuration: dict, assignment: str) -> None:
    """Set one `outer.inner=value` in place. Exits when the key is not there."""
    key, equals, text = assignment.partition("=")
    *outer, last = key.split(".")
    place = configuration
    for name in outer:
        place = place.get(name) if isinstance(place, dict) else None
    if not equals or not isinstance(place, dict) or last not in place:
        sys.exit(f"configure: expected KEY=VALUE with a key of the file, got {assignment!r}")
    try:
        place[last] = json.loads(text)
    except json.JSONDecodeError:
        place[last] = text


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    configuration = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for assignment in sys.argv[2:]:
        replace(configuration, assignment)
    print(json.dumps(configuration, indent=2))


if __name__ == "__main__":
    main()
