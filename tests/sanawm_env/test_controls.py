"""Controls: numbers of each, limits, and camera paths that stay rigid whatever is commanded."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanawm_env import se3
from sanawm_env.actions import MAX_SPEED, MAX_TURN, integrate_twist, twist_between
from sanawm_env.controls import KEYS, TWISTS, Chunked, Control, Keys, OneKey, Planar, Twist, make_control
from sanawm_env.keys import Held, parse_action_string
from sanawm_env.limits import Limits
from world_model.errors import InputError

FRAMES, FPS = 4, 16.0
CONTROLS = [*TWISTS, *KEYS]


def fly(control: Control, actions: list[Any], limits: Limits | None = None) -> np.ndarray:
    """Poses (steps * F, 4, 4) of some actions from the start."""
    pose, held, path = np.eye(4), Held(), []
    for action in actions:
        poses, held = control.path(action, pose, held, FRAMES, FPS, limits or Limits())
        assert poses.shape == (FRAMES, 4, 4)
        pose = poses[-1]
        path.append(poses)
    return np.concatenate(path)


def assert_rigid(path: np.ndarray, tolerance: float = 1e-14) -> None:
    rotations = path[:, :3, :3]
    assert np.abs(rotations.swapaxes(1, 2) @ rotations - np.eye(3)).max() < tolerance
    assert (np.linalg.det(rotations) > 0).all()
    np.testing.assert_array_equal(path[:, 3], np.broadcast_to([0, 0, 0, 1], (len(path), 4)))


def test_a_twist_is_held_for_the_step() -> None:
    action = np.array([0.5, -0.2, 1, 0.3, -0.7, 0.1], np.float32)
    expected = integrate_twist(np.eye(4), action * np.array([*MAX_SPEED, *MAX_TURN]), 2 * FRAMES, FPS)
    np.testing.assert_allclose(fly(Twist(), [action, action]), expected, atol=1e-14)
    same = fly(Chunked(), [np.tile(action, (FRAMES, 1))] * 2)
    np.testing.assert_array_equal(same, fly(Twist(), [action, action]))


def test_chunked_commands_every_frame() -> None:
    action = np.zeros((FRAMES, 6), np.float32)
    action[1, 2] = 1
    np.testing.assert_allclose(fly(Chunked(max_speed=2.0), [action])[:, 2, 3], [0, 0.125, 0.125, 0.125])


def test_planar_drives_and_turns() -> None:
    path = fly(Planar(), [np.array([1, 0], np.float32)] * 4 + [np.array([0, 1], np.float32)] * 8)
    np.testing.assert_allclose(path[15, :3, 3], [0, 0, 1])
    np.testing.assert_allclose(path[-1, :3, 2], [1, 0, 0], atol=1e-12)  # 45 deg/s for two seconds
    np.testing.assert_array_equal(path[:, 1, 3], 0)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_steps_of_keys_are_an_action_string(version: str) -> None:
    control = Keys(version=version)
    held = ["w", "jw", "", "", "d", "ik", "s"]
    actions = [np.array([letter in keys for letter in control.letters], np.int8) for keys in held]
    text = ",".join(f"{keys or 'none'}-{FRAMES}" for keys in held)
    expected = parse_action_string(text, version)[1:]
    np.testing.assert_allclose(fly(control, actions), expected, atol=1e-6)
    np.testing.assert_array_equal(fly(control, [a.astype(bool) for a in actions]), fly(control, actions))


def test_one_key_is_that_key_alone() -> None:
    names = {1: "w", 2: "s", 3: "l", 4: "j", 5: "d", 6: "a", 7: "i", 8: "k"}
    for number, letter in names.items():
        expected = parse_action_string(f"{letter}-8,none-4")[1:]
        np.testing.assert_allclose(fly(OneKey(), [number, np.int64(number), 0]), expected, atol=1e-6)


def test_coasting_is_remembered_between_steps() -> None:
    ahead = fly(Keys(), [np.eye(8, dtype=np.int8)[0], np.zeros(8, np.int8)])[:, 2, 3]
    assert 0.09 < ahead[FRAMES - 1] <= 0.1
    assert ahead[-1] > ahead[FRAMES - 1] + 0.05
    stopped = fly(Keys(version="v1"), [np.eye(8, dtype=np.int8)[0], np.zeros(8, np.int8)])[:, 2, 3]
    assert stopped[-1] == stopped[FRAMES - 1] == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["twist", "keys"])
def test_paths_stay_rigid_over_ten_thousand_frames(name: str) -> None:
    control = make_control(name, None, None)
    space = control.space(FRAMES)
    space.seed(0)
    path = fly(control, [space.sample() for _ in range(2500)])
    assert_rigid(path)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(CONTROLS),
    seed=st.integers(0, 2**32 - 1),
    pitch=st.sampled_from([None, 0.05, 0.6]),
    height=st.sampled_from([None, (0.0, 0.0), (-0.1, 0.4)]),
)
def test_limits_hold_in_every_control(
    name: str, seed: int, pitch: float | None, height: tuple[float, float] | None
) -> None:
    control, limits = make_control(name, None, None), Limits(pitch=pitch, height=height)
    space = control.space(FRAMES)
    space.seed(seed)
    path = fly(control, [space.sample() for _ in range(12)], limits)
    assert_rigid(path)
    if pitch is not None:
        assert np.abs(np.arcsin(path[:, 1, 2])).max() <= pitch + 1e-9
    if height is not None:
        assert height[0] - 1e-12 <= -path[:, 1, 3].max()
        assert -path[:, 1, 3].min() <= height[1] + 1e-12
    limits.check(path)


def test_a_limit_of_pitch_keeps_heading_and_roll() -> None:
    up = np.array([0, 0, 0, 1, 0, 0], np.float32)
    path = fly(Twist(), [up] * 8, Limits(pitch=0.2))  # would look up by 60 degrees
    np.testing.assert_allclose(path[-1, :3, 2], [0, -np.sin(0.2), np.cos(0.2)], atol=1e-12)
    np.testing.assert_allclose(path[-1, :3, 0], [1, 0, 0], atol=1e-12)
    with pytest.raises(InputError, match=r"expected all within .*pitch=0.1.*got frame "):
        Limits(pitch=0.1).check(path)


def test_a_height_range_is_slid_along() -> None:
    climb = np.array([0, -1, 1, 0, 0, 0], np.float32)
    path = fly(Twist(), [climb] * 8, Limits(height=(0, 0.25)))
    assert path[-1, 1, 3] == -0.25
    assert path[-1, 2, 3] == pytest.approx(2.0)


def test_straight_up_is_levelled_too() -> None:
    pose = se3.exp(np.array([0, 0, 0, np.pi / 2, 0, 0]))
    held = Limits(pitch=0.3).hold(pose)
    assert_rigid(held[None])
    assert np.arcsin(-held[1, 2]) == pytest.approx(0.3)


@settings(max_examples=50, deadline=None)
@given(
    speed=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    axis=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    angle=st.sampled_from([0, 1e-9, 1e-4, 0.3, 2.9, 3.05, np.pi - 1e-6]),
    seed=st.integers(0, 99),
)
def test_the_twist_between_two_poses_leads_from_one_to_the_other(
    speed: list[float], axis: list[float], angle: float, seed: int
) -> None:
    length = np.linalg.norm(axis)
    turn = np.array(axis) / length * angle if length > 1e-3 else np.zeros(3)
    before = se3.exp(np.random.default_rng(seed).normal(size=6))
    after = before @ se3.exp(np.concatenate([speed, turn]))
    found = twist_between(before, after, 0.25)
    np.testing.assert_allclose(before @ se3.exp(found * 0.25), after, atol=1e-7)
    if angle < 3:
        np.testing.assert_allclose(found * 0.25, [*speed, *turn], atol=1e-9)


@pytest.mark.parametrize(
    ("control", "action", "message"),
    [
        (Planar(), np.zeros(6, np.float32), r"expected \(2,\) floating point, got \(6,\)"),
        (Chunked(), np.zeros(6, np.float32), r"expected \(4, 6\) floating point, got \(6,\)"),
        (Keys(), np.zeros(8, np.float32), r"expected \(8,\) of 0 and 1, got \(8,\) float32"),
        (Keys(), np.full(8, 2), "of 0 and 1, got"),
        (Keys(), np.zeros(7, np.int8), r"got \(7,\) int8"),
        (OneKey(), 9, "expected an integer from 0 to 8, got 9"),
        (OneKey(), -1, "got -1"),
        (OneKey(), 1.0, "got 1.0 of .* float64"),
        (OneKey(), np.zeros(1, np.int64), r"got \[0\] of \(1,\)"),
    ],
)
def test_actions_that_cannot_be_read(control: Control, action: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"action: .*{message}"):
        fly(control, [action])


def test_controls_by_name_and_by_object() -> None:
    assert make_control("planar", 2.0, None) == Planar(max_speed=2.0)
    assert make_control("keys-v1", None, None) == Keys(version="v1")
    mine = Twist(max_turn=1.0)
    assert make_control(mine, None, None) is mine
    assert isinstance(OneKey().space(FRAMES), gym.spaces.Discrete)
    with pytest.raises(InputError, match=r"control: expected one of \['chunked', .* got 'wheel'"):
        make_control("wheel", None, None)
    with pytest.raises(InputError, match="or an object with space and path, got <class"):
        make_control(Twist, None, None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"max_speed: expected with a control out of .*twist.*, got 'keys'"):
        make_control("keys", 1.0, None)
    with pytest.raises(InputError, match=r"expected a version out of \['v1', 'v2'\], got 'v3'"):
        Keys(version="v3")
    with pytest.raises(InputError, match=r"control 'keys': expected a model of 16 frames a second, got 24.0"):
        Keys().path(np.zeros(8, np.int8), np.eye(4), Held(), FRAMES, 24.0, Limits())


@pytest.mark.parametrize("values", [{"pitch": 0.0}, {"pitch": 2.0}, {"height": (0.1, 0.2)}, {"height": (0.0,)}])
def test_bad_limits(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values))}.*: expected .* got"):
        Limits(**values)
