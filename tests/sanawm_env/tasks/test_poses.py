"""Distances between poses, and what is none."""

from collections.abc import Callable

import numpy as np
import pytest

from sanawm_env import se3
from sanawm_env.tasks.poses import apart, check_rigid, seen_from
from world_model.errors import InputError


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.3, 3.0, np.pi])
def test_how_far_poses_are_apart(at: Callable, angle: float) -> None:
    one = at(1, 2, 3).pose
    other = one @ se3.exp(np.array([0, 0, 0, 0, angle, 0]))
    other[:3, 3] += [0.3, 0, 0.4]
    metres, radians = apart(one, other)
    assert metres == pytest.approx(0.5)
    assert radians == pytest.approx(angle, abs=1e-15 if angle < 1e-6 else 1e-7)


def test_poses_seen_from_a_camera(at: Callable) -> None:
    camera = at(1, 0, 0, (0, np.pi / 2, 0)).pose  # looks along +x
    seen = seen_from(camera, np.stack([at(3, 0, 0, (0, 0, 0)).pose, camera]))
    np.testing.assert_allclose(seen[0], [0, 0, 2, 0, 0, 1, 0, 1, 0], atol=1e-6)  # ahead, its x is our z
    np.testing.assert_allclose(seen[1], [0, 0, 0, 1, 0, 0, 0, 1, 0], atol=1e-6)
    assert seen.dtype == np.float32


def test_what_is_no_pose() -> None:
    assert check_rigid("pose", np.eye(4, dtype=int)).dtype == np.float64
    for wrong in (np.eye(4) * 2, np.diag([1.0, 1, -1, 1]), np.full((4, 4), np.nan)):
        with pytest.raises(InputError, match="pose: expected rigid motions"):
            check_rigid("pose", wrong)
    with pytest.raises(InputError, match=r"pose: expected camera-to-world \(..., 4, 4\), got \(3, 4\) float64"):
        check_rigid("pose", np.eye(4)[:3])
