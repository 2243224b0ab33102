"""SanaWM-v0: Gymnasium's contract and the camera's."""

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence

import sanawm_env
from sanawm_env.controls import KEYS, TWISTS, Twist
from sanawm_env.env import SanaWMEnv
from sanawm_env.observations import VIEWS
from sanawm_env.tasks import Reach
from world_model.errors import StateError
from world_model.model import WorldModel

Fly = Callable[..., list[Any]]
AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)
TURN = np.array([0, 0, 0.2, 0, 1, 0], np.float32)


def test_gymnasium_finds_nothing_to_complain_about(fly: Fly, any_folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gym.make("SanaWM-v0", model=str(any_folder))
        check_env(made.unwrapped)  # makes others in every render mode
        fly(made, 0)  # through the passive checker too
        made.close()
        made.close()


def test_the_shipped_model_passes_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gym.make("SanaWM-v0")
        check_env(made.unwrapped)
    assert made.observation_space.shape == (128, 128, 3)
    assert len(made.unwrapped.scenes) >= 16  # pyright: ignore[reportAttributeAccessIssue]


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


def test_equal_seeds_give_equal_episodes(fly: Fly, any_folder: Path) -> None:
    one, two = SanaWMEnv(model=any_folder, info_frames=True), SanaWMEnv(model=any_folder, info_frames=True)
    first, other = fly(one, 7), fly(one, 8)
    again = fly(two, 7)
    assert data_equivalence(first, again, exact=True)
    assert data_equivalence(first, fly(one, 7), exact=True)  # in an env that has flown already
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
    step = env.model.step_latent
    monkeypatch.setattr(env.model, "step_latent", lambda state, poses: sent.append(poses) or step(state, poses))
    env.reset(seed=0)
    info = env.step(TURN)[-1]
    assert sent[0].shape == (1, 4, 4, 4)
    np.testing.assert_array_equal(sent[0][0, -1], info["pose"])
    turned = np.degrees(np.arctan2(info["pose"][0, 2], info["pose"][2, 2]))
    assert turned == pytest.approx(45 / 4)  # 45 degrees a second to the right for a quarter of one
    assert env.world is not None
    np.testing.assert_allclose(env.world.pose[0].numpy(), info["pose"], atol=1e-6)


def test_speeds_are_arguments(model_folder: Path) -> None:
    env = SanaWMEnv(model=model_folder, max_speed=(1, 2, 3), max_turn=0.1, task="none")
    env.reset(seed=0)
    pose = env.step(np.ones(6, np.float32))[-1]["pose"]
    assert np.linalg.norm(pose[:3, 3]) == pytest.approx(np.sqrt(14) / 4, rel=1e-3)


def test_everything_returned_is_the_users_own(fly: Fly, env: SanaWMEnv) -> None:
    env.render_mode = "rgb_array"
    before = copy.deepcopy(fly(env, 3))
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
    for axis, limit in enumerate(Twist().scale):
        value = f"{limit:.1f} m/s" if axis < 3 else f"{np.degrees(limit):.0f} deg/s"
        assert f"| {axis} | {('vx', 'vy', 'vz', 'wx', 'wy', 'wz')[axis]} |" in text
        assert value in text.split(f"| {axis} | ")[1].split("\n")[0]
    _, info = env.reset(seed=0)
    info |= env.step(AHEAD)[-1]
    for key in (*info, "frames", "scene", "image", "intrinsics", "prompt", "goal", "task", "starts", "info_frames"):
        assert f"`{key}`" in text, key
        assert f"`{key}`" in page, key
    for argument in ("control", "obs", "pitch_limit", "height_range", "agent_pos", "pixels"):
        assert f"`{argument}`" in text, argument
        assert f"`{argument}`" in page, argument
    for name in (*TWISTS, *KEYS, *VIEWS):
        assert f'"{name}"' in text, name
        assert f'"{name}"' in page, name
    task = Reach()
    for essential in (f"{task.radius} m", f"plus {task.bonus}", "Box(-1, 1, (6,), float32)", "uint8", "64 steps"):
        assert essential in text, essential
        assert essential in page, essential
