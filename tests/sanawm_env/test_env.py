"""SanaWM-v0: Gymnasium's contract, the camera's, and every bad input."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence

import sanawm_env
from sanawm_env import models
from sanawm_env.env import SanaWMEnv
from sanawm_env.tasks import Reach
from world_model.checkpoint import ASSETS
from world_model.errors import BackendError, CheckpointError, InputError, StateError
from world_model.model import WorldModel

AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)
TURN = np.array([0, 0, 0.2, 0, 1, 0], np.float32)


@pytest.fixture
def env(model_folder: Path) -> SanaWMEnv:
    return SanaWMEnv(model=model_folder)


def run(env: gym.Env, seed: int, actions: int = 3) -> list[Any]:
    """Everything that an episode of seeded random actions returns."""
    env.action_space.seed(seed)
    return [env.reset(seed=seed), *(env.step(env.action_space.sample()) for _ in range(actions))]


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_gymnasium_finds_nothing_to_complain_about(any_folder: Path, render_mode: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gym.make("SanaWM-v0", model=str(any_folder), render_mode=render_mode)
        check_env(made.unwrapped)
        run(made, 0)  # through the passive checker too
        made.close()
        made.close()


@pytest.mark.skipif(not (ASSETS / "nano" / "config.json").exists(), reason="no trained nano in this checkout")
def test_the_shipped_model_passes_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gym.make("SanaWM-v0")
        check_env(made.unwrapped)
    assert made.observation_space.shape == (128, 128, 3)
    assert len(made.unwrapped._bank) >= 16  # pyright: ignore[reportAttributeAccessIssue]


def fresh_process(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_registers_and_loads_nothing_heavy() -> None:
    program = """
import sys, gymnasium as gym, sanawm_env
spec = gym.spec("SanaWM-v0")
print(spec.max_episode_steps, {"torch", "pybullet", "av", "tyro"} & set(sys.modules))
"""
    assert fresh_process(program) == "64 set()"


def test_making_it_by_module_and_name_imports_what_it_needs(model_folder: Path) -> None:
    program = f"""
import sys, gymnasium as gym
env = gym.make("sanawm_env:SanaWM-v0", model={str(model_folder)!r})
print(type(env.unwrapped).__name__, {{"pybullet", "av", "tyro"}} & set(sys.modules))
"""
    assert fresh_process(program) == "SanaWMEnv set()"


def test_importing_again_registers_once() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sanawm_env.register_environments()
        gym.register_envs(sanawm_env)


def test_equal_seeds_give_equal_episodes(any_folder: Path) -> None:
    one, two = SanaWMEnv(model=any_folder, info_frames=True), SanaWMEnv(model=any_folder, info_frames=True)
    first, other = run(one, 7), run(one, 8)
    again = run(two, 7)
    assert data_equivalence(first, again, exact=True)
    assert data_equivalence(first, run(one, 7), exact=True)  # in an env that has flown already
    assert not np.array_equal(first[-1][0], other[-1][0])


def test_a_step_is_a_chunk(any_folder: Path) -> None:
    env = SanaWMEnv(model=any_folder, info_frames=True, task="none", render_mode="rgb_array")
    config = env.model.config
    count = config.frames_per_step
    start, info = env.reset(seed=0)
    np.testing.assert_array_equal(info["pose"], np.eye(4))
    assert start.shape == env.observation_space.shape
    assert env.metadata["render_fps"] == config.fps / count
    for step in range(2):
        observation, reward, terminated, truncated, info = env.step(AHEAD)
        assert (reward, terminated, truncated) == (0.0, False, False)
        assert info["frames"].shape == (count, *start.shape)
        np.testing.assert_array_equal(info["frames"][-1], observation)
        np.testing.assert_array_equal(env.render(), observation)
        np.testing.assert_array_equal(info["moved_frames"], [step * count + 1, (step + 1) * count])
        assert info["pose"][2, 3] == pytest.approx((step + 1) * count / config.fps * 1.0)  # 1 m/s ahead


def test_the_world_gets_the_poses_that_info_tells(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = SanaWMEnv(model=WorldModel.from_pretrained(model_folder), starts=model_folder / "starts")
    sent = []
    step = env.model.step
    monkeypatch.setattr(env.model, "step", lambda state, poses: sent.append(poses) or step(state, poses))
    env.reset(seed=0)
    info = env.step(TURN)[-1]
    assert sent[0].shape == (1, 4, 4, 4)
    np.testing.assert_array_equal(sent[0][0, -1], info["pose"])
    turned = np.degrees(np.arctan2(info["pose"][0, 2], info["pose"][2, 2]))
    assert turned == pytest.approx(45 / 4)  # 45 degrees a second to the right for a quarter of one
    assert env._world is not None
    np.testing.assert_allclose(env._world.pose[0].numpy(), info["pose"], atol=1e-6)


def test_speeds_are_arguments(model_folder: Path) -> None:
    env = SanaWMEnv(model=model_folder, max_speed=(1, 2, 3), max_turn=0.1, task="none")
    env.reset(seed=0)
    pose = env.step(np.ones(6, np.float32))[-1]["pose"]
    assert np.linalg.norm(pose[:3, 3]) == pytest.approx(np.sqrt(14) / 4, rel=1e-3)


def test_everything_returned_is_the_users_own(env: SanaWMEnv) -> None:
    env.render_mode = "rgb_array"
    before = copy.deepcopy(run(env, 3))
    env.action_space.seed(3)
    results = [env.reset(seed=3)]
    for _ in range(3):
        for array in (results[-1][0], env.render(), *results[-1][-1].values()):
            if isinstance(array, np.ndarray):
                array[...] = 0
        results.append(env.step(env.action_space.sample()))
    assert data_equivalence(results[-1], before[-1], exact=True)


def test_types_are_those_that_gymnasium_wants(env: SanaWMEnv) -> None:
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(AHEAD)
    assert (observation.dtype, type(reward), type(terminated), type(truncated)) == (np.uint8, float, bool, bool)
    assert type(info["is_success"]) is bool
    assert (info["pose"].dtype, info["intrinsics"].dtype) == (np.float64, np.float32)


def test_reaching_the_goal_pays_and_ends(env: SanaWMEnv) -> None:
    _, info = env.reset(seed=0, options={"scene": "scene-0", "goal": [0.0, 0.0, 1.25]})
    assert info["is_success"] is False
    total = 0.0
    for expected_end in (False, True):  # a quarter of a metre each; 0.8 m from the goal is reached in the second
        _, reward, terminated, _, info = env.step(AHEAD)
        total += reward
        assert terminated is expected_end
        assert info["is_success"] is expected_end
    assert total == pytest.approx(0.5 + 1.0)
    with pytest.raises(StateError, match="expected a running episode, got one that has ended"):
        env.step(AHEAD)
    env.reset()
    env.step(AHEAD)


def test_time_is_limited_by_make(model_folder: Path) -> None:
    made = gym.make("SanaWM-v0", model=model_folder, max_episode_steps=2)
    made.reset(seed=0)
    assert [made.step(-AHEAD)[3] for _ in range(2)] == [False, True]


def test_scenes_are_drawn_or_named(env: SanaWMEnv) -> None:
    drawn = {env.reset(seed=seed)[1]["scene"] for seed in range(20)}
    assert drawn == {"scene-0", "scene-1", "scene-2"}
    by_name, by_index = (env.reset(seed=1, options={"scene": s}) for s in ("scene-2", 2))
    assert data_equivalence(by_name, by_index, exact=True)
    info = by_name[1]
    assert (info["prompt"], info["intrinsics_source"]) == ("a room with a red ball", "given")
    np.testing.assert_allclose(info["intrinsics"], [47, 47, 32, 32])
    assert env.reset(options={"scene": 0, "prompt": "a red room"})[1]["prompt"] == "a red room"


def test_a_users_own_image(model_folder: Path) -> None:
    image = np.zeros((48, 96, 3), np.uint8)
    image[:, 48:] = 200
    env = SanaWMEnv(model=model_folder, task="none")
    observation, info = env.reset(seed=0, options={"image": image})
    # Covering 64x64 enlarges by 4/3 to 64x128; the middle 64 columns stay.
    assert observation.shape == (64, 64, 3)
    assert observation[:, :28].max() < 10
    assert observation[:, 36:].min() > 190
    focal = 48 / np.tan(np.radians(35)) * 4 / 3
    np.testing.assert_allclose(info["intrinsics"], [focal, focal, 32, 32], rtol=1e-6)
    assert info["intrinsics_source"] == "default: 70 degrees horizontal field of view"
    assert (info["scene"], info["prompt"]) == ("image", "")
    assert "goal" not in info
    env.step(TURN)
    info = env.reset(options={"image": image, "intrinsics": (60, 60, 40, 24)})[1]
    np.testing.assert_allclose(info["intrinsics"], [80, 80, 40 * 4 / 3 - 32, 32], rtol=1e-6)
    assert info["intrinsics_source"] == "given"


def test_an_own_image_with_a_goal_is_a_task(env: SanaWMEnv) -> None:
    image = np.full((64, 64, 3), 90, np.uint8)
    with pytest.raises(InputError, match=r"expected options\['goal'\] \(3,\) in metres for task Reach.*got none"):
        env.reset(options={"image": image})
    np.testing.assert_array_equal(env.reset(options={"image": image, "goal": (0, 0, 2)})[1]["goal"], [0, 0, 2])
    assert env.step(AHEAD)[1] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"picture": 1}, r"expected keys out of .*'image'.*got \['picture'\]"),
        ({"scene": 3}, "scene: expected an index below 3 or one of .*scene-2.*, got 3"),
        ({"scene": -1}, "got -1"),
        ({"scene": True}, "got True"),
        ({"scene": "kitchen"}, "got 'kitchen'"),
        ({"scene": 0, "image": np.zeros((64, 64, 3), np.uint8)}, "expected 'image' or 'scene', got both"),
        ({"intrinsics": (9, 9, 9, 9)}, "expected 'intrinsics' together with 'image'"),
        ({"image": np.zeros((64, 64), np.uint8)}, r"expected \(H, W, 3\) uint8, got \(64, 64\) uint8"),
        ({"image": np.zeros((64, 64, 4), np.uint8)}, r"expected \(H, W, 3\) uint8.*got \(64, 64, 4\)"),
        ({"image": np.zeros((64, 64, 3))}, r"expected \(H, W, 3\) uint8, got \(64, 64, 3\) float64"),
        ({"image": np.zeros((4, 64, 3), np.uint8)}, r"8x8 pixels or more, got \(4, 64, 3\)"),
        ({"image": np.zeros((64, 64, 3), np.uint8), "intrinsics": (0, 9, 9, 9)}, "positive focal lengths, got"),
        ({"image": np.zeros((64, 64, 3), np.uint8), "intrinsics": (9, np.nan, 9, 9)}, "expected finite"),
        ({"image": np.zeros((64, 64, 3), np.uint8), "intrinsics": (9, 9)}, r"expected finite \(4,\)"),
        ({"image": np.zeros((64, 64, 3), np.uint8), "intrinsics": "wide"}, "expected numbers, got 'wide'"),
        ({"goal": (1, 2)}, r"goal: expected finite \(3,\) metres .*got \[1.0, 2.0\]"),
        ({"goal": (1, 2, np.nan)}, "goal: expected finite"),
        ({"prompt": 5}, "prompt: expected text, got 5"),
    ],
)
def test_bad_options(env: SanaWMEnv, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        env.reset(seed=0, options=options)


def test_bad_actions_leave_the_world_as_it_was(env: SanaWMEnv) -> None:
    with pytest.raises(StateError, match="expected a running episode, got none; call reset first"):
        env.step(AHEAD)
    with pytest.raises(StateError, match="render: expected a running episode"):
        env.render()
    env.reset(seed=0)
    expected = env.step(AHEAD)
    env.reset(seed=0)
    for action in (AHEAD * np.nan, AHEAD * 1.01, AHEAD[:5], AHEAD[None], AHEAD.astype(int), None):
        with pytest.raises(InputError, match="action: expected"):
            env.step(action)  # pyright: ignore[reportArgumentType]
    assert data_equivalence(env.step(AHEAD), expected, exact=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": "escape"}, InputError, r"task: expected one of \['none', 'reach'\] or an object .*got 'escape'"),
        ({"task": Reach}, InputError, "got <class"),
        ({"model": "no-such-model"}, CheckpointError, "expected one of .*got 'no-such-model'"),
        ({"max_speed": 0}, InputError, "max_speed: expected one positive number or three, got 0"),
        ({"max_turn": float("nan")}, InputError, "max_turn: expected"),
        ({"device": "gpu7"}, InputError, "expected a torch device .*got 'gpu7'"),
        ({"device": f"cuda:{torch.cuda.device_count()}"}, BackendError, "expected one of . CUDA devices, got 'cuda:"),
        ({"starts": "nowhere"}, InputError, "nowhere: expected starts.json and starts.safetensors, got"),
    ],
)
def test_bad_arguments(model_folder: Path, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gym.make("SanaWM-v0", **({"model": model_folder} | arguments))


def test_unknown_render_mode(model_folder: Path) -> None:
    with pytest.raises(InputError, match="expected None, 'rgb_array' or 'human', got 'ansi'"):
        SanaWMEnv(model=model_folder, render_mode="ansi")


def test_weights_are_read_once_a_process(
    model_folder: Path, sana_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_loaded", {})
    read = []
    original = WorldModel.from_pretrained.__func__
    load = classmethod(lambda cls, *given: read.append(given[0]) or original(cls, *given))
    monkeypatch.setattr(WorldModel, "from_pretrained", load)
    envs = [gym.make("SanaWM-v0", model=f) for f in (model_folder, str(model_folder), sana_folder, model_folder)]
    assert read == [model_folder.resolve(), sana_folder.resolve()]
    assert envs[0].unwrapped.model is envs[3].unwrapped.model  # pyright: ignore[reportAttributeAccessIssue]


def test_a_folder_that_was_trained_on_is_read_again(model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    before = models.shared_model(folder)
    assert models.shared_model(folder) is before
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("small-nano", "renamed"))
    assert models.shared_model(folder).config.name == "renamed"


def test_a_model_may_be_given_as_an_object(model_folder: Path) -> None:
    model = WorldModel.from_pretrained(model_folder)
    named = SanaWMEnv(model=model_folder)
    given = SanaWMEnv(model=model, starts=model_folder / "starts")
    assert given.model is model
    assert data_equivalence(run(given, 2), run(named, 2), exact=True)
    with pytest.raises(InputError, match="expected the model's own, cpu, or none, got 'meta'"):
        SanaWMEnv(model=model, device="meta")


def test_pickles_without_weights_and_goes_on_where_it_was(model_folder: Path) -> None:
    env = gym.make("SanaWM-v0", model=str(model_folder))
    run(env, 5)
    data = pickle.dumps(env)
    weights = sum(path.stat().st_size for path in model_folder.glob("*.safetensors"))
    assert len(data) < weights
    woken, copied = pickle.loads(data), copy.deepcopy(env)
    expected = env.step(TURN)
    for other in (woken, copied):
        assert other.unwrapped.model is env.unwrapped.model  # pyright: ignore[reportAttributeAccessIssue]
        assert data_equivalence(other.step(TURN), expected, exact=True)
    assert data_equivalence(run(woken, 6), run(env, 6), exact=True)


def test_the_spec_survives_json_and_pickle(model_folder: Path) -> None:
    arguments = {"model": str(model_folder), "max_speed": [0.5, 0.5, 0.5], "task": "none"}
    made = gym.make("SanaWM-v0", **arguments)
    assert made.spec is not None
    for spec in (gym.envs.registration.EnvSpec.from_json(made.spec.to_json()), pickle.loads(pickle.dumps(made.spec))):
        assert json.loads(spec.to_json()) == json.loads(made.spec.to_json())
        assert data_equivalence(run(gym.make(spec), 4), run(made, 4), exact=True)


def test_vector_environments_of_gymnasium_take_it(model_folder: Path) -> None:
    worlds = gym.make_vec("SanaWM-v0", num_envs=2, vectorization_mode="sync", model=model_folder)
    observations, _ = worlds.reset(seed=3)
    observations, rewards, *_, info = worlds.step(np.stack([AHEAD, TURN]))
    assert observations.shape == (2, 64, 64, 3)
    assert rewards.shape == (2,)
    assert info["pose"].shape == (2, 4, 4)
    worlds.close()


def test_rendering_without_a_mode_warns_as_gymnasium_does(env: SanaWMEnv) -> None:
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="expected render_mode='rgb_array' or 'human'"):
        assert env.render() is None


def test_the_docstring_is_the_datasheet(model_folder: Path) -> None:
    text = SanaWMEnv.__doc__ or ""
    env = SanaWMEnv(model=model_folder)
    page = (Path(__file__).parents[2] / "docs" / "env.md").read_text()
    for axis, limit in enumerate(env._limits):
        value = f"{limit:.1f} m/s" if axis < 3 else f"{np.degrees(limit):.0f} deg/s"
        assert f"| {axis} | {('vx', 'vy', 'vz', 'wx', 'wy', 'wz')[axis]} |" in text
        assert value in text.split(f"| {axis} | ")[1].split("\n")[0]
    _, info = env.reset(seed=0)
    info |= env.step(AHEAD)[-1]
    for key in (*info, "frames", "scene", "image", "intrinsics", "prompt", "goal", "task", "starts", "info_frames"):
        assert f"`{key}`" in text, key
        assert f"`{key}`" in page, key
    task = Reach()
    for essential in (f"{task.radius} m", f"plus {task.bonus}", "Box(-1, 1, (6,), float32)", "uint8", "64 steps"):
        assert essential in text, essential
        assert essential in page, essential
