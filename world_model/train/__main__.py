"""python -m world_model.train OBJECTIVE --config FILE.json [flags that override it]

Bare machines have no tyro: with `--config FILE` alone nothing beyond torch, numpy, safetensors, tqdm and OpenCV is
imported.
"""

import dataclasses
import importlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from world_model.errors import InputError, SanaWMError

# objective -> (module, configuration dataclass); each module has train(configuration)
OBJECTIVES = {
    "tokenizer": ("world_model.train.tokenizer", "TokenizerRun"),
    "latents": ("world_model.train.data.latents", "LatentsRun"),
    "text": ("world_model.train.data.encode_text", "TextRun"),
    "flow": ("world_model.train.flow", "FlowRun"),
    "judge": ("world_model.train.judge", "JudgeRun"),
    "adversarial": ("world_model.train.adversarial", "AdversarialRun"),
    "trajectories": ("world_model.train.trajectories", "TrajectoryRun"),
    "ode": ("world_model.train.ode", "OdeRun"),
    "self_forcing": ("world_model.train.self_forcing", "SelfForcingRun"),
    "pairs": ("world_model.train.pairs", "PairsRun"),
    "decoder": ("world_model.train.decoder", "DecoderRun"),
    "refiner": ("world_model.train.refiner", "RefinerRun"),
    "bench": ("world_model.train.bench", "BenchRun"),
}


def main(arguments: list[str]) -> None:
    """Parse the command line and run one objective."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    usage = f"usage: python -m world_model.train {{{','.join(OBJECTIVES)}}} --config FILE.json [--run.lr 1e-4 ...]"
    if arguments[:1] in (["-h"], ["--help"]):
        print(usage)
        return
    if not arguments or arguments[0] not in OBJECTIVES:
        sys.exit(usage)
    module, name = OBJECTIVES[arguments[0]]
    objective = importlib.import_module(module)
    config = parse(getattr(objective, name), arguments[1:])
    if "RANK" not in os.environ:
        objective.train(config)
        return
    from world_model.train import distributed

    if not hasattr(config, "run"):
        raise InputError(f"{arguments[0]}: expected one process, got several (RANK is set)")
    distributed.join(os.environ, config.run.device, config.run.context)
    objective.train(config)
    distributed.leave()


def parse(kind: type, arguments: list[str]) -> Any:
    """A configuration from `--config FILE.json`, then flags (with tyro) over it. Raises InputError."""
    default = None
    if arguments[:1] == ["--config"]:
        if len(arguments) < 2:
            raise InputError("--config: expected the name of a JSON file, got nothing")
        default, arguments = from_json(kind, Path(arguments[1])), arguments[2:]
        if not arguments:
            return default
    import tyro

    return tyro.cli(kind, args=arguments) if default is None else tyro.cli(kind, args=arguments, default=default)


def from_json(kind: type, path: Path) -> Any:
    """A dataclass, nested ones included, from a JSON file; keys left out keep their defaults."""
    try:
        values = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: expected a JSON file: {error}") from error
    return _build(kind, values, str(path))


def _build(kind: type, values: Any, where: str, default: Any = None) -> Any:
    """default: an instance whose fields the keys that are left out keep."""
    hints, fields = get_type_hints(kind), {f.name: f for f in dataclasses.fields(kind)}
    if not isinstance(values, dict) or not values.keys() <= hints.keys():
        raise InputError(f"{where}: expected an object with keys among {sorted(hints)}, got {values}")
    needed = {name for name, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    if default is None and not needed <= values.keys():
        raise InputError(f"{where}: expected the keys {sorted(needed)}, got {sorted(values)}")
    built = {}
    for name, value in values.items():
        hint, factory = hints[name], fields[name].default_factory
        if dataclasses.is_dataclass(hint):
            made = None if factory is dataclasses.MISSING else factory()
            value = _build(hint, value, f"{where}: {name}", made if default is None else getattr(default, name))
        elif get_origin(hint) is tuple:
            value = tuple(value)
        built[name] = value
    return kind(**built) if default is None else dataclasses.replace(default, **built)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SanaWMError as error:  # what the user can mend: the message says it, a traceback would bury it
        sys.exit(f"{type(error).__name__}: {error}")
