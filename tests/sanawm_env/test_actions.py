"""Twists against the matrix exponential; keyboard strings against recorded trajectories."""

from pathlib import Path

import numpy as np
import pytest

from sanawm_env import se3
from sanawm_env.actions import MAX_SPEED, MAX_TURN, check_action, integrate_twist, twist_limits
from sanawm_env.keys import KEYBOARDS, parse_action_string
from sanawm_env.paths import TRAIN_KINDS, propose
from world_model.errors import InputError


def test_axes_are_those_of_opencv() -> None:
    ahead = integrate_twist(np.eye(4), np.array([0, 0, 1.0, 0, 0, 0]), 4, 16)
    np.testing.assert_allclose(ahead[:, :3, 3], [[0, 0, k / 16] for k in (1, 2, 3, 4)])
    right = integrate_twist(np.eye(4), np.array([0, 0, 0, 0, np.pi / 4, 0]), 8, 16)[-1]
    np.testing.assert_allclose(right[:3, 2], [np.sin(np.pi / 8), 0, np.cos(np.pi / 8)])  # looks to the right
    up = integrate_twist(np.eye(4), np.array([0, 0, 0, 0.5, 0, 0]), 16, 16)[-1]
    assert up[1, 2] < 0  # y points down
    # The twist is the camera's own: turned right by 90 degrees, ahead is the start's right.
    turned = integrate_twist(np.eye(4), np.array([0, 0, 0, 0, np.pi / 2, 0]), 16, 16)[-1]
    np.testing.assert_allclose(
        integrate_twist(turned, np.array([0, 0, 2.0, 0, 0, 0]), 16, 16)[-1, :3, 3], [2, 0, 0], atol=1e-12
    )


def test_rotations_stay_rotations_over_a_long_episode() -> None:
    twist = np.array([0.3, -0.2, 1.0, 0.4, 0.7, -0.3])
    pose = np.eye(4)
    for _ in range(1000):
        pose = integrate_twist(pose, twist, 4, 16)[-1]
    gap = pose[:3, :3].T @ pose[:3, :3] - np.eye(3)
    assert np.abs(gap).max() < 1e-14
    np.testing.assert_allclose(pose, se3.exp(twist * 250), atol=1e-9)  # 4000 frames are 250 seconds


def test_many_worlds_at_once_equal_each_alone() -> None:
    rng = np.random.default_rng(0)
    poses = np.stack([se3.exp(rng.normal(size=6)) for _ in range(3)])
    twists = rng.normal(size=(3, 6))
    together = integrate_twist(poses, twists, 5, 16.0)
    assert together.shape == (3, 5, 4, 4)
    for i in range(3):
        np.testing.assert_array_equal(together[i], integrate_twist(poses[i], twists[i], 5, 16.0))


def test_limits() -> None:
    np.testing.assert_array_equal(twist_limits(2.0, 0.5), [2, 2, 2, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(twist_limits((1, 2, 3), [4, 5, 6]), [1, 2, 3, 4, 5, 6])
    full = twist_limits(MAX_SPEED, MAX_TURN)
    assert full[2] == 1.0
    assert full[4] == pytest.approx(np.pi / 4)
    rng = np.random.default_rng(1)  # every motion that the training data shows can be commanded
    assert all((np.abs(propose(kind, rng)) <= full + 1e-12).all() for kind in set(TRAIN_KINDS) - {"return"})


@pytest.mark.parametrize(
    ("speed", "turn", "name"), [(0, 1, "max_speed"), (1, (1, 2), "max_turn"), (1, np.nan, "max_turn")]
)
def test_bad_limits(speed: object, turn: object, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: expected one positive number or three, got"):
        twist_limits(speed, turn)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(5, np.float32), r"expected \(6,\) floating point, got \(5,\) float32"),
        (np.zeros((1, 6), np.float32), r"got \(1, 6\) float32"),
        (np.zeros(6, np.int64), r"expected \(6,\) floating point, got \(6,\) int64"),
        (np.array([0, 0, np.nan, 0, 0, 0], np.float32), "expected finite numbers, got .*nan"),
        (np.array([0, 0, np.inf, 0, 0, 0]), "expected finite numbers, got .*inf"),
        (np.array([0, 0, 1.5, 0, 0, 0], np.float32), r"expected numbers in \[-1, 1\], got .*1\.5"),
        ("forward", r"expected \(6,\) floating point, got \(\)"),
    ],
)
def test_bad_actions(action: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_action(action)  # pyright: ignore[reportArgumentType]


def test_good_actions_keep_their_values() -> None:
    action = np.array([1, -1, 0.5, 0, 0, 0], np.float32)
    np.testing.assert_array_equal(check_action(action), action)


@pytest.mark.parametrize("name", ["v1", "v2", "v2_unsmoothed"])
def test_action_strings_follow_the_recorded_trajectories(golden_dir: Path, name: str) -> None:
    if not (golden_dir / "camera.npz").exists():
        pytest.skip(f"{golden_dir.name} has no camera.npz")
    golden = np.load(golden_dir / "camera.npz")
    smooth = False if name == "v2_unsmoothed" else None
    for i, text in enumerate(golden["strings"]):
        poses = parse_action_string(str(text), name[:2], smooth=smooth)
        expected = golden[f"keys_{name}_{i}"]
        assert poses.dtype == np.float32
        np.testing.assert_allclose(poses, expected, rtol=0, atol=1e-5, err_msg=str(text))


def test_strings_are_read_leniently_in_form() -> None:
    plain = parse_action_string("w-3,jw-2,none-4")
    assert plain.shape == (10, 4, 4)
    np.testing.assert_array_equal(plain[0], np.eye(4))
    np.testing.assert_array_equal(parse_action_string(" W-3 \uff0c wJ - 2,\nNONE-4"), plain)


def test_letters_differ_between_versions() -> None:
    assert parse_action_string("a-8", "v1")[-1, 0, 3] < 0  # a strafes left in the first version
    v2 = parse_action_string("a-8", "v2")[-1]
    assert v2[0, 3] == 0
    assert v2[0, 2] < 0  # and turns left in the second


def test_pitch_stops_at_its_limit() -> None:
    def pitch(version: str) -> float:
        return float(np.degrees(np.arcsin(-parse_action_string("i-200", version)[-1, 1, 2])))

    assert pitch("v1") == pytest.approx(84.0, abs=1e-3)  # 70 turns of 1.2; one more would pass 85
    assert pitch("v2") == pytest.approx(60.0, abs=1e-3)


def test_opposite_keys_cancel_and_moves_stay_horizontal() -> None:
    for version in KEYBOARDS:
        np.testing.assert_allclose(parse_action_string("ws-9", version)[-1], np.eye(4), atol=1e-7)
        assert np.abs(parse_action_string("iw-20,kdw-9", version)[:, 1, 3]).max() < 1e-9


def test_letting_go_of_one_of_two_opposite_keys_speeds_up_gradually() -> None:
    steps = np.diff(parse_action_string("ws-4,w-40")[:, 2, 3])[4:]
    assert 0 < steps[0] < 0.005
    assert (np.diff(steps) > -1e-7).all()
    assert steps[-1] == pytest.approx(0.025, rel=0.01)


@pytest.mark.parametrize("segment", ["", "w", "w-", "-5", "w-0", "w-1.5", "w--3", "x-3", "wnone-3", "w_3"])
def test_malformed_strings_name_the_segment(segment: str) -> None:
    with pytest.raises(InputError, match=f"expected <keys>-<frames> .*got {segment!r} in"):
        parse_action_string(f"w-3,{segment},d-2")


def test_unknown_version() -> None:
    with pytest.raises(InputError, match=r"expected one of \['v1', 'v2'\], got 'v3'"):
        parse_action_string("w-3", "v3")
