"""Footage of any rate, size and convention becomes an episode of the model's; descriptions of it are checked."""

import json

import numpy as np
import pytest

from world_model.errors import BackendError, EpisodeError, InputError
from world_model.train.data.episode import Episode, write_episode
from world_model.train.data.poses import from_layout, inverse, relative_to_first
from world_model.train.data.recording import Recording, pick_frames, to_episode
from world_model.train.data.source import open_entries, open_source, optional_module

H, W = 48, 96


def path_of(times: np.ndarray) -> np.ndarray:
    """c2w (T, 4, 4) float64: turns right at 0.5 rad/s and walks 1 m/s along the world's z, from a far start."""
    c2w = np.tile(np.eye(4), (len(times), 1, 1))
    c, s = np.cos(0.5 * times + 1), np.sin(0.5 * times + 1)
    c2w[:, 0, 0], c2w[:, 0, 2], c2w[:, 2, 0], c2w[:, 2, 2] = c, s, -s, c
    c2w[:, :3, 3] = np.stack([7 + 0 * times, -3 + 0 * times, times], 1)
    return c2w


def make_recording(times: np.ndarray, **changes: object) -> Recording:
    """Frame i is of the grey i, and brighter in its right half."""

    def pictures(indices):
        for i in indices:
            picture = np.full((H, W, 3), i, np.uint8)
            picture[:, W // 2 :] += 100
            yield picture

    fields = {
        "times": times,
        "c2w": path_of(times),
        "intrinsics": np.array([80.0, 82.0, W / 2 + 4, H / 2 - 2]),
        "pictures": pictures,
        "caption": "a hall",
        "meta": {"from": "test"},
    }
    return Recording(**(fields | changes))


def test_frames_keep_their_own_poses_at_the_models_rate():
    times = 100 + np.arange(61) / 30
    episode = to_episode(make_recording(times), 16.0, (H, W))
    assert (len(episode.frames), episode.fps) == (33, 16.0)
    seen = episode.frames[:, 0, 0, 0].astype(int)
    assert np.abs(times[seen] - times[0] - np.arange(33) / 16).max() <= 0.5 / 30 + 1e-9
    expected = np.linalg.inv(path_of(times)[0]) @ path_of(times)[seen]
    np.testing.assert_allclose(episode.c2w, expected, atol=1e-6)
    np.testing.assert_array_equal(episode.c2w[0], np.eye(4))
    assert (episode.caption, episode.meta) == ("a hall", {"from": "test"})


@pytest.mark.parametrize("size", [(24, 24), (24, 48), (40, 40)])
def test_pictures_cover_the_models_size_and_pixels_keep_their_rays(size):
    episode = to_episode(make_recording(np.arange(9) / 16), 16.0, size)
    assert episode.frames.shape == (9, *size, 3)
    scale = size[0] / H  # the height decides for all these sizes
    fx, fy, cx, cy = episode.intrinsics[3]
    np.testing.assert_allclose([fx, fy], [80 * scale, 82 * scale], rtol=1e-6)
    np.testing.assert_allclose([cx - size[1] / 2, cy - size[0] / 2], [4 * scale, -2 * scale], atol=1e-5)
    edge = size[1] // 2  # what was the middle is the middle
    assert int(episode.frames[3, 5, edge + 3, 0]) - int(episode.frames[3, 5, edge - 4, 0]) == 100
    assert (episode.intrinsics == episode.intrinsics[0]).all()


def test_rates_and_holes():
    even = np.arange(40) / 16
    np.testing.assert_array_equal(pick_frames(even, 16.0), np.arange(40))
    np.testing.assert_array_equal(pick_frames(even, 8.0), np.arange(0, 40, 2))
    lost = np.delete(even, 7)
    assert pick_frames(lost, 16.0)[7] in (6, 7)  # a neighbour stands in
    with pytest.raises(EpisodeError, match=r"at least 14.4 frames a second, got 10$"):
        pick_frames(np.arange(40) / 10, 16.0)
    with pytest.raises(EpisodeError, match=r"within 0.125 s of every moment, got none within 0.25 s 0.625 s after"):
        pick_frames(np.delete(even, range(7, 14)), 8.0)
    with pytest.raises(EpisodeError, match="turn back"):
        pick_frames(np.array([0.0, 0.1, 0.05]), 8.0)
    with pytest.raises(EpisodeError, match="at least 2 frames"):
        pick_frames(np.array([1.0]), 8.0)


@pytest.mark.parametrize(
    ("axes", "right", "down", "forward"),
    [
        ("opencv", [1, 0, 0], [0, 1, 0], [0, 0, 1]),
        ("opengl", [1, 0, 0], [0, -1, 0], [0, 0, -1]),
        ("ros_body", [0, -1, 0], [0, 0, -1], [1, 0, 0]),
    ],
)
def test_axes(axes, right, down, forward):
    """Where a camera at the world's origin, its own axes those of the world, has its right, down and forward."""
    (c2w,) = from_layout(np.eye(4).reshape(1, 16), "matrix", axes, 1.0)
    np.testing.assert_array_equal(c2w[:3, :3].T, [right, down, forward])


def test_layouts_agree():
    c2w = path_of(np.linspace(0, 4, 5))
    half = (0.5 * np.linspace(0, 4, 5) + 1) / 2
    still = np.zeros(5)
    xyzw = np.stack([still, np.sin(half), still, np.cos(half)], 1)
    for layout, rotation in (("position_xyzw", xyzw), ("position_wxyz", xyzw[:, [3, 0, 1, 2]])):
        rows = np.concatenate([c2w[:, :3, 3] * 1000, rotation], 1)
        np.testing.assert_allclose(from_layout(rows, layout, "opencv", 1e-3), c2w, atol=1e-12)
    for rows in (c2w, c2w[:, :3], c2w.astype(np.float16)):
        np.testing.assert_allclose(from_layout(rows, "matrix", "opencv", 1.0), c2w, atol=1e-2)
    rounded = from_layout(c2w.astype(np.float16), "matrix", "opencv", 1.0)
    np.testing.assert_allclose(inverse(rounded) @ rounded, np.tile(np.eye(4), (5, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(relative_to_first(c2w)[2], np.linalg.inv(c2w[0]) @ c2w[2], atol=1e-6)


@pytest.mark.parametrize(
    ("values", "layout", "message"),
    [
        (np.zeros((2, 6)), "matrix", "got 6"),
        (np.zeros((2, 7)), "position_xyzw", "length 1"),
        (np.full((2, 16), np.nan), "matrix", "NaN"),
        (np.tile(np.diag([1.0, 1, 1.5, 1]), (2, 1, 1)), "matrix", "off by 0.5"),
        (np.tile(np.diag([1.0, 1, -1, 1]), (2, 1, 1)), "matrix", "determinant 1"),
    ],
)
def test_what_is_no_pose(values, layout, message):
    with pytest.raises(EpisodeError, match=message):
        from_layout(values, layout, "opencv", 1.0)


def test_folders_of_episodes_are_a_source(tmp_path):
    pytest.importorskip("av", reason="videos are written by av")
    for seed in (0, 1):
        episode = to_episode(make_recording(np.arange(9) / 16 + seed), 16.0, (32, 32))
        write_episode(tmp_path / "val" / f"{seed:06d}", episode)
    first, second = open_entries((str(tmp_path / "val"),), (32, 32))
    assert [first.name, second.name] == ["val/000000", "val/000001"]
    assert first.where == str(tmp_path / "val" / "000000")
    assert first.key != second.key
    assert isinstance(first.read(), Episode)
    with pytest.raises(EpisodeError, match=r"000000: expected frames of \(64, 64, 3\), got \(32, 32, 3\)"):
        open_entries((str(tmp_path / "val"),), (64, 64))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON file"),
        ("[1]", "expected an object .*got 'list'"),
        ('{"format": "tfrecord"}', "expected .*lerobot.*got 'tfrecord'"),
        ('{"format": "lerobot", "path": "x"}', "expected the keys .*'pose'"),
    ],
)
def test_descriptions_that_fit_no_format(tmp_path, text, message):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(InputError, match=rf"data.json: {message}"):
        open_source(str(tmp_path / "data.json"))


def test_a_missing_description_and_a_missing_package_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.json: expected a JSON file"):
        open_source(str(tmp_path / "nowhere.json"))
    with pytest.raises(BackendError, match=r'expected no_such_thing \(pip install "sanawm-env\[lerobot\]"\)'):
        optional_module("no_such_thing", "lerobot")
    assert optional_module("json", "lerobot") is json
