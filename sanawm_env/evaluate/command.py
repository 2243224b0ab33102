"""Score policies in generated and in rendered worlds from the same starts, and tell how well the scores agree.

Policies act on pixels; those with privileged pose are shown as bounds. The same table is made with the world model
replaced by the repeated start picture and by the rotation warp. A run that was stopped goes on.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sanawm_env.evaluate.arenas import MODEL, TRUTH, Arenas
from sanawm_env.evaluate.baselines import KINDS
from sanawm_env.evaluate.flights import camera_errors
from sanawm_env.evaluate.policies import Policy, load_policy
from sanawm_env.evaluate.record import Record, outcomes_of, read_record
from sanawm_env.evaluate.report import to_json, to_markdown, to_svg
from sanawm_env.evaluate.rollouts import Job, Outcome, deal, draw_starts, play
from sanawm_env.evaluate.shipped import shipped
from sanawm_env.evaluate.table import Table, make_table
from sanawm_env.registration import register_environments
from world_model.errors import InputError

RECORD = "episodes.jsonl"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Options of `sanawm evaluate`."""

    policies: tuple[str, ...] = ()
    """Names of shipped policies, module:name, or files (.zip of Stable-Baselines3, .pt TorchScript, .onnx); default:
    all shipped ones."""
    env: str = "SanaWM-v0"
    """Environment to judge."""
    twin: str = "SanaWMTwin-v0"
    """Environment that renders truly."""
    env_args: str = "{}"
    """Arguments of the environment, as JSON: '{"model": "runs/flow/export"}'."""
    twin_args: str = "{}"
    """Arguments of the twin, as JSON."""
    starts: Path | None = None
    """Bank of start scenes for all; default: the shipped one, 24 rooms that training never saw."""
    episodes: int = 24
    """Episodes of each policy, for each seed."""
    seeds: tuple[int, ...] = (0,)
    """Each draws an order of the scenes, the worlds' noise and the policies' randomness."""
    steps: int = 64
    """Steps after which an episode ends."""
    worlds: int = 8
    """Worlds in one batch."""
    baselines: tuple[str, ...] = KINDS
    """Engines to compare with."""
    camera_scenes: int = 4
    """Scenes that the camera's control is measured in, with each kind of path; 0: not at all."""
    reuse: Path | None = None
    """Folder of an earlier evaluation of other weights: its episodes outside of the model are not played again."""
    out: Path = Path("evaluation")
    """Folder for the outcomes, table, JSON and plot."""

    def __post_init__(self) -> None:
        for name, low in (("episodes", 1), ("steps", 1), ("worlds", 1), ("camera_scenes", 0)):
            if getattr(self, name) < low:
                raise InputError(f"{name}: expected an integer >= {low}, got {getattr(self, name)}")
        for name in ("policies", "seeds", "baselines"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise InputError(f"{name}: expected each once, got {list(given)}")
        if not self.seeds or min(self.seeds) < 0:
            raise InputError(f"seeds: expected integers >= 0, at least one, got {list(self.seeds)}")
        if not set(self.baselines) <= set(KINDS):
            raise InputError(f"baselines: expected out of {KINDS}, got {self.baselines}")
        for name in ("env_args", "twin_args"):
            try:
                parsed = json.loads(getattr(self, name))
            except ValueError as error:
                raise InputError(f"{name}: expected a JSON object, got {getattr(self, name)!r}") from error
            if not isinstance(parsed, dict):
                raise InputError(f"{name}: expected a JSON object, got {getattr(self, name)!r}")


def evaluate(config: Evaluate) -> tuple[Table, str]:
    """Play what is not played yet, and write the report into config.out; returns the table and its Markdown."""
    register_environments()
    names = config.policies or tuple(shipped())
    policies = {name: load_policy(name) for name in names}
    arenas = Arenas(
        env=config.env,
        twin=config.twin,
        env_args=json.loads(config.env_args),
        twin_args=json.loads(config.twin_args),
        starts=config.starts,
        steps=config.steps,
        count=config.worlds,
    )
    about = _about(config, arenas, names)
    worlds = (TRUTH, MODEL, *config.baselines)
    known = {} if config.reuse is None else _played_elsewhere(config.reuse / RECORD, about, worlds)
    record = Record(config.out / RECORD, about)
    for world, outcomes in known.items():
        if not record.outcomes(world):
            for outcome in outcomes:
                record.add(world, outcome)
    began = time.perf_counter()
    for world in worlds:
        play_world(world, config, arenas, policies, record)
    _log.info("episodes took %.0f s", time.perf_counter() - began)
    bounds = [name for name, policy in policies.items() if policy.reads == "pose"]
    table = make_table({world: record.outcomes(world) for world in worlds}, names, bounds)
    camera = camera_errors(arenas, (TRUTH, MODEL), config.camera_scenes) if config.camera_scenes else {}
    text = to_markdown(table, MODEL, config.baselines, camera)
    (config.out / "evaluation.json").write_text(to_json(table, camera, about), encoding="utf-8")
    (config.out / "evaluation.md").write_text(text, encoding="utf-8")
    if table.agreements:
        (config.out / "evaluation.svg").write_text(to_svg(table), encoding="utf-8")
    return table, text


def _about(config: Evaluate, arenas: Arenas, names: Sequence[str]) -> dict[str, Any]:
    """What tells this evaluation from others, as JSON values."""
    model = arenas.config
    return {
        "model": arenas.fingerprint,
        "env": config.env,
        "twin": config.twin,
        "env_args": dict(arenas.env_args),
        "twin_args": dict(arenas.twin_args),
        "policies": list(names),
        "starts": arenas.starts_digest,
        "frames": [model.tokenizer.height, model.tokenizer.width, model.fps, model.frames_per_step],
        "episodes": config.episodes,
        "seeds": list(config.seeds),
        "steps": config.steps,
        "worlds": config.worlds,
    }


def _played_elsewhere(path: Path, about: dict[str, Any], worlds: Sequence[str]) -> dict[str, list[Outcome]]:
    """Outcomes, in the worlds that are not the model's, of an evaluation of other weights. Raises InputError for an
    evaluation of anything else."""
    found, lines = read_record(path)
    wanted, got = (_without_weights(each) for each in (about, found))
    if wanted != got:
        raise InputError(f"{path}: expected an evaluation of {wanted}, got {got}")
    return {world: outcomes_of(lines, world) for world in worlds if world != MODEL}


def _without_weights(about: dict[str, Any]) -> dict[str, Any]:
    arguments = {name: value for name, value in about["env_args"].items() if name != "model"}
    return {**about, "model": None, "env_args": arguments}


def play_world(world: str, config: Evaluate, arenas: Arenas, policies: dict[str, Policy], record: Record) -> None:
    """Play in one world what the record does not hold yet."""
    starts = draw_starts(arenas.scenes, config.episodes, config.seeds)
    jobs = [Job(policy=policy, start=start) for start in starts for policy in policies]
    done = {(outcome.policy, outcome.seed) for outcome in record.outcomes(world)}
    hands = deal(jobs, config.worlds, done)
    with tqdm(total=len(jobs), initial=len(done), desc=world, unit="episode") as bar:
        if len(done) == len(jobs):
            return
        envs = arenas.make(world)
        for outcome in play(envs, hands, policies):
            record.add(world, outcome)
            bar.update()
        envs.close()


def main() -> None:
    """The command `sanawm evaluate`."""
    import tyro

    config = tyro.cli(Evaluate, prog="sanawm evaluate", description=__doc__)
    _, text = evaluate(config)
    print(text)
    print(f"written to {config.out.resolve()}")


if __name__ == "__main__":
    main()
