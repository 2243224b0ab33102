"""The released training set's layout, made here in small: two archives of clips with cameras beside them."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from world_model.errors import EpisodeError, InputError
from world_model.train.data.latents import open_latents
from world_model.train.data.zip_sidecars import number
from world_model.train.loop import generator

STRIDE, CELL, C, Y, X = 4, 16, 3, 2, 3
FRAMES = {"walk-1": {"a": 17, "b": 18, "c": 9}, "walk-2": {"d": 13}}  # of each clip's camera


def camera(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Turns by 0.05 rad and goes on by 0.1 units a frame, from a far start; the lens of 96 x 64 pixels."""
    angle = 0.05 * np.arange(count) + seed
    pose = np.tile(np.eye(4), (count, 1, 1))
    pose[:, 0, 0], pose[:, 0, 2], pose[:, 2, 0], pose[:, 2, 2] = (
        np.cos(angle),
        np.sin(angle),
        -np.sin(angle),
        np.cos(angle),
    )
    pose[:, :3, 3] = np.stack([0.1 * np.arange(count) + 50 + seed, np.full(count, 3.0), np.zeros(count)], 1)
    return pose.astype(np.float32), np.tile(np.float32([80 + seed, 82, 48, 30]), (count, 1))


def latents(key: str, count: int) -> np.ndarray:
    rng = np.random.default_rng(ord(key))
    return rng.standard_normal((C, 1 + (count - 1) // STRIDE, Y, X)).astype(np.float16)


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def write_cache(root: Path, name: str, **changes: bytes) -> None:
    (root / "cache").mkdir(exist_ok=True)
    with zipfile.ZipFile(root / "cache" / f"{name}.zip", "w") as archive:
        for key, count in FRAMES[name].items():
            archive.writestr(f"{key}.npz", changes.get(key, npz(z=latents(key, count))))


def write_cameras(root: Path, name: str, leave_out: str = "") -> None:
    """The clips' rows in another order than the clips, with rows between them that belong to none."""
    ids, ranges, poses, lenses, row = [], [], [], [], 0
    for key, count in reversed(FRAMES[name].items()):
        pose, lens = camera(ord(key) % 7, count)
        if key != leave_out:
            ids.append(key)
            ranges.append((row, count))
        poses += [pose, pose[:2]]
        lenses += [lens, lens[:2]]
        row += count + 2
    arrays = {"ids": np.array(ids), "ranges": np.array(ranges).reshape(-1, 2), "pose": np.concatenate(poses)}
    (root / "raw" / f"{name}_camera.npz").write_bytes(npz(**arrays, intrinsics=np.concatenate(lenses)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    for name, clips in FRAMES.items():
        with zipfile.ZipFile(tmp_path / "raw" / f"{name}.zip", "w") as archive:
            for key in [*clips, "without latents"]:
                archive.writestr(f"{key}.json", json.dumps({"width": 96, "height": 64, "prompt": f"street {key}"}))
        write_cache(tmp_path, name)
        write_cameras(tmp_path, name)
    scales = {"a": {"median": 2.0, "count": 9}, "b": 0.5, "c": {"score": 3.0, "median": 9.0}}
    (tmp_path / "raw" / "walk-1_metric_scale_stats.json").write_text(json.dumps(scales))
    return tmp_path


def describe(root: Path, **changes: object) -> Path:
    values = {"format": "zip-latents", "raw": "raw", "cache": "cache", "stride": STRIDE, "cell": CELL, "min_bytes": 100}
    (root / "streets.json").write_text(json.dumps(values | changes))
    return root / "streets.json"


def test_windows_are_the_clips_starts(root):
    data = open_latents(describe(root))
    assert data.places(3) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert data.places(5) == [(0, 0), (1, 0)]
    windows = data.windows([(1, 0), (3, 0)], 4)
    assert windows.ids == ("walk-1/b@0", "walk-2/d@0")
    assert windows.captions == ("street b", "street d")
    assert (windows.latents.dtype, windows.c2w.dtype, windows.intrinsics.dtype) == (torch.float32,) * 3
    for i, (key, count) in enumerate((("b", 18), ("d", 13))):
        np.testing.assert_array_equal(windows.latents[i], latents(key, count)[:, :4].astype(np.float32))
    assert windows.c2w.shape == (2, 13, 4, 4)


def test_positions_are_scaled_and_relative_and_rotations_are_not_scaled(root):
    windows = open_latents(describe(root)).windows([(0, 0), (1, 0), (2, 0), (3, 0)], 3)
    for i, (key, count, scale) in enumerate((("a", 17, 2.0), ("b", 18, 0.5), ("c", 9, 3.0), ("d", 13, 1.0))):
        pose = camera(ord(key) % 7, count)[0].astype(np.float64)
        moved = np.linalg.inv(pose[0]) @ pose[:9]
        moved[:, :3, 3] *= scale
        np.testing.assert_allclose(windows.c2w[i], moved, atol=2e-5)
        np.testing.assert_array_equal(windows.c2w[i, 0], np.eye(4))
        assert abs(float(windows.c2w[i, 8, :3, 3].norm()) - 0.8 * scale) < 1e-4


def test_the_lens_is_that_of_the_latents_pixels(root):
    """96 x 64 pixels were encoded as 3 x 2 cells of 16: half of the size."""
    windows = open_latents(describe(root)).windows([(0, 0)], 2)
    seed = ord("a") % 7
    np.testing.assert_allclose(windows.intrinsics, [[(80 + seed) / 2, 41, 24, 15]])


def test_draws_repeat_and_cover(root):
    data = open_latents(describe(root))
    drawn = data.sample(32, 4, generator(0, 0, "x"))
    assert set(drawn.ids) == {"walk-1/a@0", "walk-1/b@0", "walk-2/d@0"}
    assert torch.equal(drawn.latents, data.sample(32, 4, generator(0, 0, "x")).latents)
    with pytest.raises(InputError, match="windows of 9 latents: no clip of 4"):
        data.sample(1, 9, generator(0, 0, "x"))
    with pytest.raises(InputError, match="expected a start at latent 0"):
        data.windows([(0, 2)], 3)
    with pytest.raises(InputError, match="at least 2 latents"):
        data.places(1)


def test_scores_choose_clips_and_captions_may_come_from_elsewhere(root):
    for name, scores in (("walk-1", {"a": 3.5, "b": {"vmafmotion_score": 60}, "c": [1, 2]}), ("walk-2", {"d": None})):
        lines = [json.dumps({"key": key, "vmaf": score}) for key, score in scores.items()]
        (root / "raw" / f"{name}_vmaf.jsonl").write_text("\n".join(json.loads(x)["key"] and x for x in lines))
        (root / "raw" / f"{name}_static.json").write_text(json.dumps({"a": {"prompt": "an alley"}, "c": "a park"}))
    assert _names(open_latents(describe(root, filters={"_vmaf": [0.5, 50]}))) == ("walk-1/a@0", "walk-1/c@0")
    data = open_latents(describe(root, caption_suffix="_static"))
    assert data.windows([(0, 0), (1, 0), (2, 0)], 2).captions == ("an alley", "street b", "a park")
    with pytest.raises(EpisodeError, match=r"none within|found none"):
        open_latents(describe(root, filters={"_vmaf": [90, 99]}))
    with pytest.raises(EpisodeError, match=r"walk-1.zip: expected a file walk-1_dover.json or walk-1_dover.jsonl"):
        open_latents(describe(root, filters={"_dover": [0, 1]}))
    with pytest.raises(InputError, match=r"streets.json: filters: _vmaf: expected \[low, high\], got \[2, 1\]"):
        open_latents(describe(root, filters={"_vmaf": [2, 1]}))


def _names(data) -> tuple[str, ...]:
    return data.windows(data.places(2), 2).ids


def test_truncated_clips_are_refused_by_name_or_left_out(root, caplog):
    write_cache(root, "walk-1", b=npz(z=latents("b", 18))[:80])
    with pytest.raises(EpisodeError, match=r"cache/walk-1.zip: b.npz: expected at least 100 bytes, got 80: truncated"):
        open_latents(describe(root))
    assert _names(open_latents(describe(root, skip_bad=True))) == ("walk-1/a@0", "walk-1/c@0", "walk-2/d@0")
    assert "left out" in caplog.text
    assert "b.npz" in caplog.text


def test_clips_without_camera_or_scale_are_refused_by_name_or_left_out(root):
    write_cameras(root, "walk-2", leave_out="d")
    with pytest.raises(EpisodeError, match=r"walk-2.zip: d.npz: expected a camera in .*walk-2_camera.npz, got none"):
        open_latents(describe(root))
    (root / "raw" / "walk-1_metric_scale_stats.json").write_text('{"a": 1, "b": {"median": -1}, "c": 1}')
    with pytest.raises(EpisodeError, match=r"walk-1.zip: b.npz: expected a metric scale > 0, got {'median': -1}"):
        open_latents(describe(root))
    assert _names(open_latents(describe(root, skip_bad=True))) == ("walk-1/a@0", "walk-1/c@0")


def test_a_zoom_is_refused(root):
    path = root / "raw" / "walk-2_camera.npz"
    arrays = dict(np.load(path))
    arrays["intrinsics"][5, :2] *= 1.2
    path.write_bytes(npz(**arrays))
    with pytest.raises(
        EpisodeError, match=r"d.npz: expected focal lengths within 1% of their median, got 20.0%: a zoom"
    ):
        open_latents(describe(root))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: write_cache(root, "walk-1", a=b"x" * 200), "a.npz: expected an .npz with an array z"),
        (lambda root: write_cache(root, "walk-1", a=npz(x=np.zeros(99))), "a.npz: expected an .npz with an array z"),
        (
            lambda root: write_cache(root, "walk-1", a=npz(z=np.zeros((C, 2, Y, X)))),
            r"a.npz: expected z \(C, 5 or more, Y, X\), got \(3, 2, 2, 3\)",
        ),
        (lambda root: (root / "cache" / "walk-1.zip").unlink(), "walk-1.zip: expected two zip archives"),
        (lambda root: (root / "cache" / "walk-1.zip").write_bytes(b"zip"), "walk-1.zip: expected two zip archives"),
        (lambda root: (root / "raw" / "walk-1_camera.npz").unlink(), "walk-1_camera.npz: expected the arrays ids"),
        (
            lambda root: (root / "raw" / "walk-1_metric_scale_stats.json").write_text("[3]"),
            "walk-1_metric_scale_stats.json: expected JSON",
        ),
    ],
)
def test_damage_is_named(root, damage, message):
    damage(root)
    with pytest.raises(EpisodeError, match=message):
        open_latents(describe(root)).windows([(0, 0)], 3)


def test_numbers_out_of_what_is_said():
    said = [3, [1, 2], {"x": "y", "z": 4}, {"median": 2, "score": 5}, {"a": {"median": 6}}, None, "7", {}, []]
    assert [number(x) for x in said[:5]] == [3, 1.5, 4, 5, 6]
    assert all(np.isnan(number(x)) for x in said[5:])
