"""LeRobot version 3: two episodes in one file each, read by the names that a description gives."""

import json
from pathlib import Path

import numpy as np
import pytest

from world_model.config import TokenizerConfig
from world_model.errors import EpisodeError, InputError
from world_model.train.data.clips import open_clips
from world_model.train.data.latents import LatentsRun, open_packed, train
from world_model.train.data.source import open_entries
from world_model.train.data.video import encode_video
from world_model.train.loop import generator
from world_model.train.tokenizer import save_tokenizer
from world_model.vae import VideoTokenizer

pytest.importorskip("av", reason="videos are written by av")
pa = pytest.importorskip("pyarrow", reason="extra lerobot")
parquet = pytest.importorskip("pyarrow.parquet", reason="extra lerobot")

LENGTHS, FPS, H, W = (21, 33), 32, 32, 64
VIDEO = "observation.images.front"


def poses() -> np.ndarray:
    """Of both episodes, (54, 7): position in millimetres, quaternion xyzw; OpenGL axes; goes ahead and turns."""
    t = np.arange(sum(LENGTHS)) / FPS
    still = 0 * t
    return np.stack([still + 5, still, -1000 * t, still, np.sin(0.2 * t), still, np.cos(0.2 * t)], 1)


def make_dataset(root: Path, **changes: object) -> Path:
    """A dataset whose frame number i, over both episodes, is of the grey 4 * i; and a description of it."""
    features = {VIDEO: {"dtype": "video", "shape": [H, W, 3]}, "camera_pose": {"dtype": "float32", "shape": [7]}}
    features["camera_matrix"] = {"dtype": "float32", "shape": [3, 3]}
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "features": features,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    video = root / "videos" / VIDEO / "chunk-000" / "file-000.mp4"
    data, episodes = (root / name / "chunk-000" / "file-000.parquet" for name in ("data", "meta/episodes"))
    for file in (video, data, episodes):
        file.parent.mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    grey = 4 * np.arange(sum(LENGTHS), dtype=np.uint8)[:, None, None, None]
    encode_video(video, np.broadcast_to(grey, (sum(LENGTHS), H, W, 3)), FPS, crf=10, colour="yuv420p")
    matrix = [[[70.0, 0, W / 2 + 2], [0, 70.0, H / 2], [0, 0, 1]]] * sum(LENGTHS)
    frames = {
        "camera_pose": poses().tolist(),
        "camera_matrix": matrix,
        "frame_index": [i for length in LENGTHS for i in range(length)],
        "episode_index": [e for e, length in enumerate(LENGTHS) for _ in range(length)],
    }
    backwards = {name: values[::-1] for name, values in frames.items()}  # order in the file is not order in time
    parquet.write_table(pa.table(backwards), data)
    rows = {
        "episode_index": [0, 1],
        "length": list(LENGTHS),
        "tasks": [["pick up"], ["put down"]],
        "data/chunk_index": [0, 0],
        "data/file_index": [0, 0],
        f"videos/{VIDEO}/chunk_index": [0, 0],
        f"videos/{VIDEO}/file_index": [0, 0],
        f"videos/{VIDEO}/from_timestamp": [0.0, LENGTHS[0] / FPS],
        "stats/camera_pose/min": [[0.0], [0.0]],
    }
    parquet.write_table(pa.table(rows), episodes)
    return describe(root, **changes)


def describe(root: Path, **changes: object) -> Path:
    description = {
        "format": "lerobot",
        "path": root.name,  # relative to the description
        "video": VIDEO,
        "pose": "camera_pose",
        "pose_layout": "position_xyzw",
        "camera_axes": "opengl",
        "metres": 0.001,
        "intrinsics": "camera_matrix",
    }
    (root.parent / "kitchen.json").write_text(json.dumps(description | changes))
    return root.parent / "kitchen.json"


def test_episodes_share_files_and_are_told_apart(tmp_path):
    description = make_dataset(tmp_path / "kitchen")
    entries = open_entries((str(description),), (16, 16))
    assert [entry.name for entry in entries] == ["kitchen/000000", "kitchen/000001"]
    assert entries[0].key != entries[1].key
    first, second = (entry.read() for entry in entries)
    assert (len(first.frames), len(second.frames)) == (11, 17)  # half of the frames: 16 of 32 a second
    for episode, offset in ((first, 0), (second, LENGTHS[0])):
        grey = episode.frames.mean(axis=(1, 2, 3))
        assert np.abs(grey - 4 * (offset + 2 * np.arange(len(grey)))).max() < 1.5
    assert (first.caption, second.caption) == ("pick up", "put down")
    assert second.meta == {"dataset": "kitchen", "episode": 1}


def test_poses_and_lens_are_the_models(tmp_path):
    description = make_dataset(tmp_path / "kitchen")
    second = open_entries((str(description),), (16, 16))[1].read()
    np.testing.assert_allclose(second.intrinsics, np.tile([35, 35, 9, 8], (17, 1)), atol=1e-5)
    # 16 steps of 1/16 s: a metre ahead, which the start camera sees from the angle it had; turned left by 0.4 rad
    start = 2 * 0.2 * LENGTHS[0] / FPS
    np.testing.assert_allclose(second.c2w[16, :3, 3], [np.sin(start), 0, np.cos(start)], atol=1e-5)
    np.testing.assert_allclose(second.c2w[16, :3, 2], [-np.sin(0.4), 0, np.cos(0.4)], atol=1e-5)


def test_numbers_for_the_lens_and_words_for_the_scene(tmp_path):
    description = make_dataset(tmp_path / "kitchen", intrinsics=[60, 62, 32, 16], caption="a kitchen", fps=32)
    episode = open_entries((str(description),), (H, W))[0].read()
    assert episode.frames.shape == (21, H, W, 3)
    assert episode.intrinsics[5].tolist() == [60, 62, 32, 16]
    assert (episode.caption, episode.fps) == ("a kitchen", 32)


def test_training_reads_it(tmp_path):
    description = str(make_dataset(tmp_path / "kitchen"))
    clips = open_clips((description,), str(tmp_path / "cache"), (16, 16))
    drawn, ids = clips.sample(3, 9, generator(0, 0, "x"))
    assert drawn.shape == (3, 9, 16, 16, 3)
    assert all("kitchen episode" in name for name in ids)
    save_tokenizer(
        VideoTokenizer(TokenizerConfig(height=16, width=16, latent_channels=4, base_width=8)), tmp_path / "t"
    )
    train(LatentsRun(tokenizer=str(tmp_path / "t"), data=(description,), out=str(tmp_path / "latents"), start_every=2))
    data = open_packed(tmp_path / "latents")
    assert data.ids == ("kitchen/000000", "kitchen/000001")
    assert [len(episode["latents"]) for episode in data.episodes] == [3, 5]
    assert data.windows([(1, 2)], 3).captions == ("put down",)


def test_a_description_of_what_is_not_there(tmp_path):
    root = tmp_path / "kitchen"
    make_dataset(root)
    for changes, message in (
        ({"pose": "pose"}, r"expected the features \['pose'\], got \['camera_matrix'"),
        ({"video": "camera_pose"}, "expected camera_pose to be of dtype video, got 'float32'"),
        ({"pose_layout": "matrix"}, r"kitchen episode 0: poses: expected \(16, 12\) numbers each"),
        ({"intrinsics": "camera_pose"}, "episode 0: intrinsics: expected 4 numbers or a 3x3 matrix a frame, got 7"),
        ({"fps": 64}, "episode 0: expected footage of at least 57.6 frames a second, got 32"),
    ):
        with pytest.raises(EpisodeError, match=message):
            open_entries((str(describe(root, **changes)),), (16, 16))[0].read()
    for changes, message in (
        ({"camera_axes": "unity"}, "camera_axes: expected one of .*got 'unity'"),
        ({"intrinsics": [1, 2]}, r"intrinsics: expected a feature's name or fx, fy, cx, cy, got \(1, 2\)"),
        ({"metres": 0}, "metres, fps: expected > 0"),
    ):
        with pytest.raises(InputError, match=rf"kitchen.json: {message}"):
            open_entries((str(describe(root, **changes)),), (16, 16))


def test_damage_is_named(tmp_path):
    root = tmp_path / "kitchen"
    description = str(make_dataset(root))
    video = root / "videos" / VIDEO / "chunk-000" / "file-000.mp4"
    data = root / "data" / "chunk-000" / "file-000.parquet"
    whole = data.read_bytes()
    data.write_bytes(whole[:-20])
    with pytest.raises(EpisodeError, match=r"episode 0: .*file-000.parquet: expected parquet"):
        open_entries((description,), (16, 16))[0].read()
    parquet.write_table(pa.Table.from_pylist(parquet.read_table(pa.BufferReader(whole)).to_pylist()[5:]), data)
    with pytest.raises(EpisodeError, match=r"expected the frames 0 to 32, got 28 rows"):
        open_entries((description,), (16, 16))[1].read()
    data.write_bytes(whole)
    black = np.zeros((30, H, W, 3), np.uint8)
    encode_video(video, black, FPS, crf=30, colour="yuv420p")
    with pytest.raises(EpisodeError, match=r"file-000.mp4: expected a picture at 0.969 s, got none"):
        open_entries((description,), (16, 16))[1].read()
    video.write_bytes(b"no video")
    with pytest.raises(EpisodeError, match=r"file-000.mp4: expected a video"):
        open_entries((description,), (16, 16))[0].read()
    video.unlink()
    with pytest.raises(EpisodeError, match=r"kitchen episode 0: expected a file .*file-000.mp4, got none"):
        open_entries((description,), (16, 16))
    info = root / "meta" / "info.json"
    info.write_text(info.read_text().replace("v3.0", "v2.1"))
    with pytest.raises(EpisodeError, match=r"info.json: expected codebase_version v3.x, got v2.1"):
        open_entries((description,), (16, 16))
