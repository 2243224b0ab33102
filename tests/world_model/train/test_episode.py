"""Episodes on disk: what is written is read, by both decoders, and every kind of damage is named."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from world_model.errors import EpisodeError
from world_model.train.data.episode import (
    Episode,
    list_episodes,
    pick_decoder,
    read_episode,
    read_header,
    write_episode,
)

pytest.importorskip("av", reason="videos are written by av")
T, H, W = 9, 64, 96


def make_episode(**changes: object) -> Episode:
    """A disc that moves over a gradient, with every optional part."""
    y, x = np.mgrid[:H, :W]
    frames = np.zeros((T, H, W, 3), np.uint8)
    for t in range(T):
        frames[t] = np.stack([x * 2, y * 3, np.full_like(x, 90)], axis=-1)
        frames[t][(x - 20 - 5 * t) ** 2 + (y - 30) ** 2 < 150] = (228, 18, 22)
    c2w = np.tile(np.eye(4, dtype=np.float32), (T, 1, 1))
    c2w[:, 2, 3] = np.linspace(0, 1, T)
    fields = {
        "frames": frames,
        "c2w": c2w,
        "intrinsics": np.tile(np.array([70, 70, W / 2, H / 2], np.float32), (T, 1)),
        "caption": "a room with a red ball",
        "fps": 16.0,
        "goal": np.array([0.5, 0.2, 3.0], np.float32),
        "depth": np.broadcast_to(np.linspace(1, 5, T).astype(np.float16)[:, None, None], (T, H, W)),
        "meta": {"split": "val", "seed": 3},
    }
    return Episode(**(fields | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_episode(tmp_path / "val" / "000003", make_episode())
    return tmp_path / "val" / "000003"


def remake_checksum(folder: Path, name: str) -> None:
    header = json.loads((folder / "episode.json").read_text())
    header["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "episode.json").write_text(json.dumps(header))


def edit_header(folder: Path, **changes: object) -> None:
    header = json.loads((folder / "episode.json").read_text())
    (folder / "episode.json").write_text(json.dumps(header | changes))


@pytest.mark.parametrize(("decoder", "module"), [("av", "av"), ("opencv", "cv2")])
def test_what_is_written_is_read(folder: Path, decoder: str, module: str) -> None:
    pytest.importorskip(module)
    written, read = make_episode(), read_episode(folder, decoder=decoder)
    for name in ("c2w", "intrinsics", "goal", "depth"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert (read.caption, read.fps, read.meta) == (written.caption, written.fps, written.meta)
    error = read.frames.astype(float) - written.frames
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 36
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 1  # no shift of colour: matrix and range agree


def test_both_decoders_see_the_same_pixels(folder: Path) -> None:
    pytest.importorskip("cv2")
    one, two = (read_episode(folder, decoder=name).frames for name in ("av", "opencv"))
    assert np.abs(one.astype(int) - two).max() <= 2


def test_goal_and_depth_may_be_absent(tmp_path: Path) -> None:
    write_episode(tmp_path / "0", make_episode(goal=None, depth=None))
    read = read_episode(tmp_path / "0")
    assert read.goal is None
    assert read.depth is None


def test_writing_is_reproducible_and_replaces(folder: Path) -> None:
    names = ("episode.json", "video.mp4", "arrays.safetensors")
    before = {name: (folder / name).read_bytes() for name in names}
    (folder / "stray").write_text("left over")
    write_episode(folder, make_episode())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_only_whole_episodes_are_listed(folder: Path) -> None:
    write_episode(folder.with_name("000001"), make_episode())
    folder.with_name("000002").mkdir()
    folder.with_name(".000004.77.part").mkdir()
    (folder.with_name(".000004.77.part") / "episode.json").write_text("{}")
    assert [path.name for path in list_episodes(folder.parent)] == ["000001", "000003"]
    with pytest.raises(EpisodeError, match="expected a folder of episodes, got none"):
        list_episodes(folder / "absent")


@pytest.mark.parametrize("name", ["episode.json", "video.mp4", "arrays.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(EpisodeError, match=f"expected a file {name}, got none"):
        read_episode(folder)


def test_another_version_is_refused(folder: Path) -> None:
    edit_header(folder, version=2)
    with pytest.raises(EpisodeError, match=r"expected .*'sanawm-episode', 1.*got .*'sanawm-episode', 2"):
        read_episode(folder)


@pytest.mark.parametrize(("text", "message"), [("{", "expected JSON"), ("[]", "got list")])
def test_a_header_that_is_none(folder: Path, text: str, message: str) -> None:
    (folder / "episode.json").write_text(text)
    with pytest.raises(EpisodeError, match=message):
        read_header(folder)


def test_a_header_without_an_entry(folder: Path) -> None:
    header = json.loads((folder / "episode.json").read_text())
    del header["fps"]
    (folder / "episode.json").write_text(json.dumps(header))
    with pytest.raises(EpisodeError, match=r"expected the entries \['fps'\]"):
        read_episode(folder)


@pytest.mark.parametrize("name", ["video.mp4", "arrays.safetensors"])
def test_a_flipped_bit_is_a_checksum_mismatch(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(EpisodeError, match=rf"{name}: expected sha256 [0-9a-f]{{64}}, got [0-9a-f]{{64}}"):
        read_episode(folder)


@pytest.mark.parametrize(("decoder", "module"), [("av", "av"), ("opencv", "cv2")])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_a_truncated_video_with_a_remade_checksum(folder: Path, decoder: str, module: str, keep: float) -> None:
    pytest.importorskip(module)
    content = (folder / "video.mp4").read_bytes()
    (folder / "video.mp4").write_bytes(content[: int(keep * len(content))])
    remake_checksum(folder, "video.mp4")
    with pytest.raises(EpisodeError, match=r"video\.mp4: expected"):
        read_episode(folder, decoder=decoder)


@pytest.mark.parametrize(("decoder", "module"), [("av", "av"), ("opencv", "cv2")])
def test_garbage_inside_a_video_with_a_remade_checksum(folder: Path, decoder: str, module: str) -> None:
    """Decoders conceal damaged pictures without an error; the recorded means give them away."""
    pytest.importorskip(module)
    content = bytearray((folder / "video.mp4").read_bytes())
    start = content.index(b"mdat") + 800  # past the encoder's settings, which lie first
    content[start : start + 600] = np.random.default_rng(0).bytes(600)
    (folder / "video.mp4").write_bytes(content)
    remake_checksum(folder, "video.mp4")
    with pytest.raises(EpisodeError, match=r"video\.mp4: expected"):
        read_episode(folder, decoder=decoder)


def test_a_video_of_another_episode_is_found_out(folder: Path, tmp_path: Path) -> None:
    write_episode(tmp_path / "other", make_episode(frames=make_episode().frames[::-1].copy()))
    (folder / "video.mp4").write_bytes((tmp_path / "other" / "video.mp4").read_bytes())
    remake_checksum(folder, "video.mp4")
    with pytest.raises(EpisodeError, match="of their recorded means"):
        read_episode(folder)


def test_a_video_with_another_number_of_frames(folder: Path, tmp_path: Path) -> None:
    whole = make_episode()
    short = make_episode(
        frames=whole.frames[:5], c2w=whole.c2w[:5], intrinsics=whole.intrinsics[:5], depth=None, goal=None
    )
    write_episode(tmp_path / "short", short)
    (folder / "video.mp4").write_bytes((tmp_path / "short" / "video.mp4").read_bytes())
    remake_checksum(folder, "video.mp4")
    with pytest.raises(EpisodeError, match=r"expected frames \(9, 64, 96, 3\), got \(5, 64, 96, 3\)"):
        read_episode(folder)


def test_broken_arrays_with_a_remade_checksum(folder: Path) -> None:
    content = (folder / "arrays.safetensors").read_bytes()
    (folder / "arrays.safetensors").write_bytes(content[: len(content) // 2])
    remake_checksum(folder, "arrays.safetensors")
    with pytest.raises(EpisodeError, match=r"arrays\.safetensors: expected safetensors"):
        read_episode(folder)


def test_poses_that_are_no_rigid_transforms() -> None:
    poses = make_episode().c2w
    stretched, mirrored, holed, moved = (poses.copy() for _ in range(4))
    stretched[4, :3, :3] *= 1.01
    mirrored[4, 0, 0] = -1
    holed[2, 0, 3] = np.nan
    moved[0, 0, 3] = 1
    for broken, message in (
        (stretched, "expected rigid transforms to 1e-4, got a deviation of 0.0303"),
        (mirrored, "expected rigid transforms to 1e-4, got a deviation of 2"),
        (holed, "expected finite rigid transforms"),
        (moved, "expected the identity at frame 0"),
    ):
        with pytest.raises(EpisodeError, match=message):
            make_episode(c2w=broken)


@pytest.mark.parametrize("focal", [0.0, -70.0, np.nan])
def test_focal_lengths_that_are_not_positive(focal: float) -> None:
    intrinsics = make_episode().intrinsics.copy()
    intrinsics[3, 1] = focal
    with pytest.raises(EpisodeError, match="expected finite values with fx, fy > 0, got"):
        make_episode(intrinsics=intrinsics)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.zeros((T, H, W), np.uint8)}, r"frames: expected \(T, H, W, 3\)"),
        ({"frames": np.zeros((T, H, W, 3), np.float32)}, r"frames: expected uint8 .*, got float32"),
        ({"c2w": np.zeros((T - 1, 4, 4), np.float32)}, r"c2w: expected float32 \(9, 4, 4\), got float32 \(8, 4, 4\)"),
        ({"goal": np.zeros(2, np.float32)}, r"goal: expected float32 \(3,\), got float32 \(2,\)"),
        ({"depth": np.zeros((T, H, W))}, r"depth: expected float16 .*, got float64"),
        ({"fps": 0.0}, "fps: expected a number > 0, got 0.0"),
    ],
)
def test_arrays_that_do_not_fit(changes: dict, message: str) -> None:
    with pytest.raises(EpisodeError, match=message):
        make_episode(**changes)


def test_decoders_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_decoder("av") == "av"
    assert pick_decoder("auto") == "av"
    with pytest.raises(EpisodeError, match=r"expected one of \('auto', 'av', 'opencv'\), got 'ffmpeg'"):
        pick_decoder("ffmpeg")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EpisodeError, match="expected opencv to be installed, got no module cv2"):
        pick_decoder("opencv")
