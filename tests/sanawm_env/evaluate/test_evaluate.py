"""Episodes of policies in vector environments, the baselines' engines, and the command from end to end."""

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from sanawm_env.camera_env import CameraEnv, Settings
from sanawm_env.camera_vector import CameraVectorEnv
from sanawm_env.evaluate.arenas import Arenas
from sanawm_env.evaluate.baselines import StartPictureEngine
from sanawm_env.evaluate.command import Evaluate, evaluate
from sanawm_env.evaluate.handicaps import Random
from sanawm_env.evaluate.policies import Plain
from sanawm_env.evaluate.privileged import Expert
from sanawm_env.evaluate.rollouts import Job, Start, deal, draw_starts, play
from sanawm_env.starts import Start as Scene
from world_model.errors import InputError
from world_model.presets import nano

LENS = np.array([45.0, 45.0, 64.0, 64.0], np.float32)


def bank(count: int = 3) -> tuple[Scene, ...]:
    """Grey pictures with a red square; the goal lies straight ahead, the farther the later."""
    pictures = np.full((count, 128, 128, 3), 130, np.uint8)
    pictures[:, 60:68, 60:68] = (220, 20, 30)
    goals = [np.array([0.0, 0.0, 2.0 + i]) for i in range(count)]
    return tuple(
        Scene(name=f"scene-{i}", image=pictures[i], intrinsics=LENS, goal=goals[i], meta={"i": i}) for i in range(count)
    )


def arena(kind: str = "repeat", count: int = 2, steps: int = 6) -> gym.vector.VectorEnv:
    settings = Settings(bank=bank(), task="reach")
    return CameraVectorEnv(CameraEnv(StartPictureEngine(kind, nano()), settings), count, steps, "Disabled")


def still(picture: np.ndarray) -> np.ndarray:
    return np.zeros(6, np.float32)


POLICIES = {"expert": Expert(), "still": Plain(still), "random": Random()}


def jobs(episodes: int = 3) -> list[Job]:
    starts = draw_starts([f"scene-{i}" for i in range(3)], episodes, [5])
    return [Job(policy=policy, start=start) for start in starts for policy in POLICIES]


def test_starts_visit_all_scenes_and_repeat_with_their_seed() -> None:
    names = [f"scene-{i}" for i in range(4)]
    starts = draw_starts(names, 8, [1, 2])
    assert sorted(start.scene for start in starts[:4]) == names
    assert [start.scene for start in starts[4:8]] == [start.scene for start in starts[:4]]
    assert [start.seed for start in starts[:2]] == [100_000, 100_001]
    assert len({start.seed for start in starts}) == 16
    assert starts[8:] == draw_starts(names, 8, [2])
    with pytest.raises(InputError, match="scenes, seeds and episodes"):
        draw_starts([], 1, [0])


def test_every_job_is_played_once_and_scored() -> None:
    outcomes = list(play(arena(count=2), deal(jobs(), 2), POLICIES))
    assert sorted((o.policy, o.seed) for o in outcomes) == sorted((job.policy, job.start.seed) for job in jobs())
    for o in outcomes:
        far = 2.0 + int(o.scene[-1])
        assert o.goal == (0, 0, far)
        if o.policy == "still":
            assert (o.success, o.total, o.steps, o.distance) == (False, 0, 6, far)
        if o.policy == "expert":  # a quarter of a metre a step, arrived within 0.8 m
            assert o.success == (far < 2.5)
            assert o.steps == (5 if far < 2.5 else 6)
            assert o.distance == pytest.approx(far - 0.25 * o.steps, abs=1e-5)
            assert o.total == pytest.approx(far - o.distance + o.success, abs=1e-5)


def test_an_interrupted_evaluation_ends_as_if_it_had_not_been() -> None:
    whole = list(play(arena(count=2), deal(jobs(), 2), POLICIES))
    some = whole[:4]
    rest = list(play(arena(count=2), deal(jobs(), 2, {(o.policy, o.seed) for o in some}), POLICIES))
    key = lambda o: (o.policy, o.seed)  # noqa: E731
    assert sorted([*some, *rest], key=key) == sorted(whole, key=key)
    assert list(play(arena(count=2), [[], []], POLICIES)) == []


def test_what_is_no_action_names_its_policy() -> None:
    wrong = {"broken": Plain(lambda picture: np.full(6, np.nan))}
    job = Job(policy="broken", start=Start(scene="scene-0", seed=0))
    with pytest.raises(InputError, match=r"policy 'broken': expected a finite action \(6,\)"):
        list(play(arena(count=1), [[job]], wrong))


def test_the_repeated_picture_stands_and_the_warped_one_turns() -> None:
    turn = np.zeros((1, 6), np.float32)
    turn[0, 4] = 1  # right, 45 degrees a second for a quarter of one
    pictures = {}
    for kind in ("repeat", "warp"):
        worlds = arena(kind, count=1)
        start, _ = worlds.reset(seed=0, options={"scene": 0})
        pictures[kind] = worlds.step(turn)[0][0]
        assert (start[0] == bank()[0].image).all()
    assert (pictures["repeat"] == bank()[0].image).all()
    red = np.argwhere(pictures["warp"][..., 0].astype(int) - pictures["warp"][..., 1] > 100)
    assert red[:, 1].mean() + 0.5 == pytest.approx(64 - 45 * np.tan(np.radians(11.25)), abs=0.5)
    moved = arena("warp", count=1)
    moved.reset(seed=0, options={"scene": 0})
    assert (moved.step(np.array([[1, 0, 1, 0, 0, 0]], np.float32))[0][0] == bank()[0].image).all()


def test_the_command_from_end_to_end(model_folder: Path, tmp_path: Path) -> None:
    given = {
        "policies": ("servo", "random", "expert"),
        "twin": "SanaWM-v0",
        "env_args": json.dumps({"model": str(model_folder)}),
        "twin_args": json.dumps({"model": str(model_folder)}),
        "episodes": 2,
        "steps": 2,
        "worlds": 2,
        "camera_scenes": 0,
        "out": tmp_path / "out",
    }
    table, text = evaluate(Evaluate(**given))
    # the twin is the model itself here: equal seeds, equal episodes
    assert table.scores["twin"] == table.scores["model"]
    assert table.bounds == ("expert",)
    assert table.agreements["model"]["total"].r == pytest.approx(1)
    assert "expert (bound)" in text
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content["about"]["policies"] == ["servo", "random", "expert"]
    assert set(content["agreement"]) == {"model", "repeat", "warp"}
    lines = (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 4 * 3 * 2
    assert "<svg" in (tmp_path / "out" / "evaluation.svg").read_text()
    # a run that was cut off goes on, and ends the same
    (tmp_path / "out" / "episodes.jsonl").write_text("\n".join(lines[:15]) + "\n")
    assert evaluate(Evaluate(**given)) == (table, text)
    with pytest.raises(InputError, match="choose another folder"):
        evaluate(Evaluate(**{**given, "steps": 3}))


def test_other_weights_need_only_the_models_episodes(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(model_folder, tmp_path / "other")
    weights = load_file(other / "transformer.safetensors")
    save_file({name: weight * 1.01 for name, weight in weights.items()}, other / "transformer.safetensors")
    given = {
        "policies": ("servo", "random"),
        "env_args": json.dumps({"model": str(model_folder)}),
        "twin": "SanaWM-v0",
        "twin_args": json.dumps({"model": str(model_folder)}),
        "episodes": 2,
        "steps": 2,
        "worlds": 2,
        "camera_scenes": 0,
    }
    first, _ = evaluate(Evaluate(**given, out=tmp_path / "first"))
    made: list[str] = []
    make = Arenas.make
    monkeypatch.setattr(Arenas, "make", lambda self, world: (made.append(world), make(self, world))[1])
    changed = {**given, "env_args": json.dumps({"model": str(other)}), "reuse": tmp_path / "first"}
    second, _ = evaluate(Evaluate(**changed, out=tmp_path / "second"))
    assert made == ["model"]
    assert {world: second.scores[world] for world in ("twin", "repeat", "warp")} == {
        world: first.scores[world] for world in ("twin", "repeat", "warp")
    }
    third = {**changed, "out": tmp_path / "third"}
    with pytest.raises(InputError, match=r"'steps': 3.*got .*'steps': 2"):
        evaluate(Evaluate(**{**third, "steps": 3}))
    with pytest.raises(InputError, match="expected the record of an evaluation, found no such file"):
        evaluate(Evaluate(**{**third, "reuse": tmp_path}))
    assert evaluate(Evaluate(**third))[0] == second  # what was refused has left nothing


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"episodes": 0}, "episodes"),
        ({"policies": ("servo", "servo")}, "each once"),
        ({"seeds": ()}, "seeds"),
        ({"baselines": ("guess",)}, "baselines"),
        ({"env_args": "[1]"}, "JSON object"),
        ({"twin_args": "{"}, "JSON object"),
    ],
)
def test_options_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Evaluate(**wrong)
