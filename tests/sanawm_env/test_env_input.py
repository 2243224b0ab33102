"""What an environment is given: scenes, own images, and every bad input."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence

from sanawm_env.env import SanaWMEnv
from sanawm_env.tasks import Reach
from world_model.errors import BackendError, CheckpointError, InputError, StateError

AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)
TURN = np.array([0, 0, 0.2, 0, 1, 0], np.float32)


def test_scenes_are_drawn_or_named(env: SanaWMEnv) -> None:
    drawn = {env.reset(seed=seed)[1]["scene"] for seed in range(20)}
    assert drawn == set(env.scenes) == {"scene-0", "scene-1", "scene-2"}
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
        ({"task": "escape"}, InputError, r"task: expected one of .*'none', 'reach'.* or an object .*got 'escape'"),
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
