"""Episodes in a mirror and backwards: the camera still sees what it saw, on the other side or in another order."""

import dataclasses

import numpy as np
import pytest

from world_model.train.data.augment import VARIANTS, backwards, mirrored, varied_frames
from world_model.train.data.episode import Episode

T, H, W = 9, 12, 16


@pytest.fixture
def episode() -> Episode:
    rng = np.random.default_rng(0)
    c2w = np.tile(np.eye(4), (T, 1, 1))
    for t in range(1, T):
        rotation, _ = np.linalg.qr(c2w[t - 1, :3, :3] + 0.1 * rng.normal(size=(3, 3)))
        c2w[t, :3, :3] = rotation * np.sign(np.diag(rotation @ c2w[t - 1, :3, :3].T))
        c2w[t, :3, 3] = 0.1 * rng.normal(size=3)
    c2w[:, :3, :3] *= np.linalg.det(c2w[:, :3, :3])[:, None, None]
    return Episode(
        frames=rng.integers(0, 255, (T, H, W, 3), dtype=np.uint8),
        c2w=c2w.astype(np.float32),
        intrinsics=np.tile(np.float32([14, 15, 7, 6.5]), (T, 1)),
        caption="a room",
        fps=16.0,
        goal=np.float32([0.4, -0.2, 3.0]),
        depth=rng.uniform(1, 5, (T, H, W)).astype(np.float16),
    )


def goal_pixels(episode: Episode) -> np.ndarray:
    """Where the goal is seen, (T, 3): u, v and depth."""
    point = np.linalg.inv(episode.c2w.astype(np.float64)) @ [*episode.goal, 1]
    fx, fy, cx, cy = episode.intrinsics.T
    return np.stack([fx * point[:, 0] / point[:, 2] + cx, fy * point[:, 1] / point[:, 2] + cy, point[:, 2]], 1)


def test_in_the_mirror_the_goal_is_on_the_other_side(episode: Episode) -> None:
    seen, other = goal_pixels(episode), goal_pixels(mirrored(episode))
    np.testing.assert_allclose(other[:, 0], W - seen[:, 0], atol=1e-4)
    np.testing.assert_allclose(other[:, 1:], seen[:, 1:], atol=1e-4)
    assert np.array_equal(mirrored(episode).frames[:, :, 0], episode.frames[:, :, -1])
    assert np.array_equal(mirrored(episode).depth[:, :, 0], episode.depth[:, :, -1])


def test_backwards_the_goal_is_seen_in_the_other_order(episode: Episode) -> None:
    np.testing.assert_allclose(goal_pixels(backwards(episode)), goal_pixels(episode)[::-1], atol=1e-4)
    assert np.array_equal(backwards(episode).frames[0], episode.frames[-1])


@pytest.mark.parametrize("variant", [mirrored, backwards])
def test_twice_is_the_episode_itself(episode: Episode, variant) -> None:
    twice = variant(variant(episode))
    for field in dataclasses.fields(Episode):
        before, after = getattr(episode, field.name), getattr(twice, field.name)
        if isinstance(before, np.ndarray):
            np.testing.assert_allclose(after, before, atol=1e-5)
        else:
            assert after == before


def test_every_variant_is_another_path(episode: Episode) -> None:
    paths = [make(episode).c2w for make in VARIANTS.values()]
    for i, one in enumerate(paths):
        assert all(np.abs(one - other).max() > 0.01 for other in paths[:i])


@pytest.mark.parametrize("suffix", VARIANTS)
def test_frames_alone_vary_as_the_episode_does(episode: Episode, suffix: str) -> None:
    assert np.array_equal(varied_frames(suffix, episode.frames), VARIANTS[suffix](episode).frames)
