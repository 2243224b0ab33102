"""The environment in every control and observation: Gymnasium's checker, spaces, receipts, absolute poses."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.wrappers import FrameStackObservation

from sanawm_env import se3
from sanawm_env.actions import integrate_twist
from sanawm_env.controls import Keys
from sanawm_env.env import SanaWMEnv
from world_model.errors import InputError, StateError

AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)
MODES = [
    ("twist", "float"),
    ("planar", "dict"),
    ("chunked", "latent"),
    ("keys", "rgb"),
    ("discrete-v1", "dict"),
]


@pytest.mark.parametrize(("control", "obs"), MODES)
def test_gymnasium_finds_nothing_to_complain_about(model_folder: Path, control: str, obs: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gym.make("SanaWM-v0", model=str(model_folder), control=control, obs=obs)
        check_env(made.unwrapped)
        made.close()


def test_observations_show_the_same_world(model_folder: Path) -> None:
    seen: dict[str, Any] = {}
    for obs in ("rgb", "float", "dict"):
        env = SanaWMEnv(model=model_folder, obs=obs)
        env.reset(seed=4)
        seen[obs], *_, info = env.step(AHEAD)
        assert env.observation_space.contains(seen[obs])
    assert seen["float"].dtype == np.float32
    np.testing.assert_array_equal(seen["float"], seen["rgb"].astype(np.float32) / 255)
    flat = seen["dict"]
    np.testing.assert_array_equal(flat["pixels"], seen["rgb"])
    np.testing.assert_allclose(flat["agent_pos"][:3], info["pose"][:3, 3], rtol=1e-6)
    np.testing.assert_allclose(flat["agent_pos"][3:].reshape(2, 3).T, info["pose"][:3, :2], atol=1e-7)
    np.testing.assert_allclose(flat["goal"], info["goal"], rtol=1e-6)
    np.testing.assert_array_equal(flat["intrinsics"], info["intrinsics"])
    assert list(SanaWMEnv(model=model_folder, obs="dict", task="none").observation_space) == [
        "agent_pos",
        "intrinsics",
        "pixels",
    ]


def test_latents_are_those_that_would_be_decoded(any_folder: Path) -> None:
    blind = SanaWMEnv(model=any_folder, obs="latent")
    seeing = SanaWMEnv(model=any_folder, obs="latent", render_mode="rgb_array")
    pixels = SanaWMEnv(model=any_folder)
    results = [env.reset(seed=2)[0] for env in (blind, seeing, pixels)]
    assert blind.observation_space.contains(results[0])
    latents, same, frame = (env.step(AHEAD)[0] for env in (blind, seeing, pixels))
    np.testing.assert_array_equal(latents, same)
    np.testing.assert_array_equal(seeing.render(), frame)
    assert seeing.world is not None
    np.testing.assert_array_equal(seeing.world.previous[0, :, 0].numpy(), latents)  # what the decoder saw last
    assert blind.world is not None
    assert blind.world.decoded.tolist() == [1]  # nothing was decoded


def test_frames_stack(model_folder: Path) -> None:
    env = FrameStackObservation(SanaWMEnv(model=model_folder), 3)
    env.reset(seed=0)
    assert env.step(AHEAD)[0].shape == (3, 64, 64, 3)


def test_the_receipt_tells_time_and_velocity(model_folder: Path) -> None:
    env = SanaWMEnv(model=model_folder, max_speed=2.0, max_turn=0.5, task="none")
    _, info = env.reset(seed=0)
    np.testing.assert_array_equal(info["velocity"], np.zeros(6))
    assert info["time"] == 0.0
    for step in (1, 2):
        info = env.step(np.array([0.5, 0, 1, 0, -1, 0.2], np.float32))[-1]
        np.testing.assert_allclose(info["velocity"], [1, 0, 2, 0, -0.5, 0.1], atol=1e-7)
        assert info["time"] == step * 0.25
        assert info["moved_frames"].tolist() == [4 * step - 3, 4 * step]


def test_absolute_poses_are_the_same_step(model_folder: Path) -> None:
    acting, placed = SanaWMEnv(model=model_folder), SanaWMEnv(model=model_folder)
    acting.reset(seed=1)
    placed.reset(seed=1)
    path = integrate_twist(np.eye(4), np.array([0, 0, 1.0, 0, np.pi / 4, 0]), 4, 16)
    expected = acting.step(np.array([0, 0, 1, 0, 1, 0], np.float32))
    result = placed.step_to(path.astype(np.float32))
    assert np.abs(result[0].astype(int) - expected[0]).max() <= 1
    np.testing.assert_allclose(result[-1]["pose"], expected[-1]["pose"], atol=1e-6)
    rotation = result[-1]["pose"][:3, :3]
    assert np.abs(rotation.T @ rotation - np.eye(3)).max() < 1e-14  # float32 poses are made exactly rigid
    np.testing.assert_allclose(placed.step(AHEAD)[-1]["pose"], acting.step(AHEAD)[-1]["pose"], atol=1e-6)


def test_absolute_poses_let_go_of_the_keys(model_folder: Path) -> None:
    env = SanaWMEnv(model=model_folder, control=Keys(), task="none")
    env.reset(seed=0)
    before = env.step(np.eye(8, dtype=np.int8)[0])[-1]["pose"]
    env.step_to(np.tile(before, (4, 1, 1)))
    np.testing.assert_array_equal(env.step(np.zeros(8, np.int8))[-1]["pose"], before)


def test_limits_of_the_camera(model_folder: Path) -> None:
    env = SanaWMEnv(model=model_folder, pitch_limit=0.1, height_range=(-0.05, 0.0), task="none")
    env.reset(seed=0)
    for _ in range(3):
        pose = env.step(np.array([0, 1, 0, 1, 0, 0], np.float32))[-1]["pose"]
    assert np.arcsin(-pose[1, 2]) == pytest.approx(0.1)
    assert pose[1, 3] == pytest.approx(0.05)
    with pytest.raises(InputError, match=r"poses: expected all within .*got frame 0"):
        env.step_to(np.tile(se3.exp(np.array([0, 0.2, 0, 0, 0, 0])), (4, 1, 1)))


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        (np.eye(4), r"expected \(4, 4, 4\) floating point, got \(4, 4\)"),
        (np.tile(np.eye(4, dtype=int), (4, 1, 1)), ".*floating point, got .*int64"),
        (np.tile(np.eye(4) * 2, (4, 1, 1)), "expected rigid transforms"),
        (np.full((4, 4, 4), np.nan), "expected finite numbers"),
    ],
)
def test_bad_poses(env: SanaWMEnv, poses: np.ndarray, message: str) -> None:
    with pytest.raises(StateError, match="step_to: expected a running episode, got none"):
        env.step_to(poses)
    env.reset(seed=0)
    with pytest.raises(InputError, match=f"poses: {message}"):
        env.step_to(poses)
    assert data_equivalence(env.step(AHEAD)[-1]["moved_frames"], np.array([1, 4]), exact=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"control": "wheel"}, "control: expected one of .*'planar'.*, got 'wheel'"),
        ({"obs": "depth"}, r"obs: expected one of \['dict', 'float', 'latent', .*'rgb'\], got 'depth'"),
        ({"control": "keys", "max_speed": 1.0}, "max_speed: expected with a control out of"),
        ({"pitch_limit": 90}, "pitch_limit: expected radians"),
        ({"height_range": (1, 2)}, "height_range: expected metres"),
    ],
)
def test_bad_arguments(model_folder: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SanaWMEnv(model=model_folder, **arguments)
