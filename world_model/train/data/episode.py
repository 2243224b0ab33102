"""Episodes on disk, format version 1: a video with the camera's path, one folder an episode.

    DIR/<split>/<000123>/episode.json         format, version, fps, frames, width, height, caption, meta, sha256
    DIR/<split>/<000123>/video.mp4            H.264, one picture a frame
    DIR/<split>/<000123>/arrays.safetensors   the arrays below

Arrays (T frames of H x W pixels): c2w (T, 4, 4) float32, camera-to-world relative to frame 0, OpenCV axes,
metres; intrinsics (T, 4) float32, fx fy cx cy in pixels, a pixel's centre at its index + 0.5; thumbs
(T, 4, 4, 3) uint8, the means of a 4 x 4 grid over each frame, against which a decoded video is checked;
optionally goal (3,) float32 in frame 0's camera axes and depth (T, H, W) float16, metres along z.
`sha256` holds the checksum of every file but episode.json. A folder without a valid episode.json is no episode.

Needs numpy, safetensors and one of av and cv2; writing needs av.
"""

import hashlib
import importlib.util
import json
import logging
import os
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from world_model.errors import EpisodeError
from world_model.train.data.video import decode_video, encode_video

FORMAT = "sanawm-episode"
VERSION = 1
CRF = 17
GRID = 4  # thumbs are GRID x GRID
TOLERANCE = 14  # of 255: how far a decoded thumb may lie from the recorded one (compression stays below 5)
_ARRAYS = ("c2w", "intrinsics", "thumbs", "goal", "depth")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Episode:
    """frames uint8 (T, H, W, 3) RGB; c2w (T, 4, 4) and intrinsics (T, 4) float32; goal (3,) float32 or None;
    depth (T, H, W) float16 or None; fps in frames a second; meta: JSON values about the origin (split, seed...).
    Raises EpisodeError where shapes, dtypes or values do not fit.
    """

    frames: np.ndarray
    c2w: np.ndarray
    intrinsics: np.ndarray
    caption: str
    fps: float
    goal: np.ndarray | None = None
    depth: np.ndarray | None = None
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or not len(self.frames):
            raise EpisodeError(f"frames: expected (T, H, W, 3) with T >= 1, got {self.frames.shape}")
        t, h, w = self.frames.shape[:3]
        _expect("frames", self.frames, (t, h, w, 3), np.uint8)
        _expect("c2w", self.c2w, (t, 4, 4), np.float32)
        _expect("intrinsics", self.intrinsics, (t, 4), np.float32)
        if self.goal is not None:
            _expect("goal", self.goal, (3,), np.float32)
        if self.depth is not None:
            _expect("depth", self.depth, (t, h, w), np.float16)
        _check_poses(self.c2w)
        focal = self.intrinsics[:, :2]
        if not (np.isfinite(self.intrinsics).all() and (focal > 0).all()):
            raise EpisodeError(
                f"intrinsics: expected finite values with fx, fy > 0, got a smallest focal length of {focal.min()}"
            )
        if not self.fps > 0:
            raise EpisodeError(f"fps: expected a number > 0, got {self.fps}")


def _expect(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape or array.dtype != dtype:
        expected = f"{np.dtype(dtype).name} {shape}"
        raise EpisodeError(f"{name}: expected {expected}, got {array.dtype} {array.shape}")


def _check_poses(c2w: np.ndarray) -> None:
    """Rigid to 1e-4, finite, and the identity at frame 0."""
    poses = c2w.astype(np.float64)
    if not np.isfinite(poses).all():
        raise EpisodeError("c2w: expected finite rigid transforms, got NaN or infinity")
    rotation = poses[:, :3, :3]
    gap = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max()
    gap = max(gap, np.abs(np.linalg.det(rotation) - 1).max(), np.abs(poses[:, 3] - [0, 0, 0, 1]).max())
    if gap > 1e-4:
        raise EpisodeError(f"c2w: expected rigid transforms to 1e-4, got a deviation of {gap:.3g}")
    if np.abs(poses[0] - np.eye(4)).max() > 1e-5:
        raise EpisodeError(f"c2w: expected the identity at frame 0, got {poses[0].tolist()}")


def write_episode(folder: Path, episode: Episode) -> None:
    """Write an episode in one piece: it appears at `folder` when complete, and replaces what was there."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    encode_video(part / "video.mp4", episode.frames, episode.fps, crf=CRF)
    arrays = {"c2w": episode.c2w, "intrinsics": episode.intrinsics, "thumbs": _thumbs(episode.frames)}
    optional = {"goal": episode.goal, "depth": episode.depth}
    arrays |= {name: array for name, array in optional.items() if array is not None}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, part / "arrays.safetensors")
    frames, height, width = episode.frames.shape[:3]
    header = {
        "format": FORMAT,
        "version": VERSION,
        "fps": episode.fps,
        "frames": frames,
        "width": width,
        "height": height,
        "caption": episode.caption,
        "meta": episode.meta,
        "sha256": {path.name: _sha256(path) for path in sorted(part.iterdir())},
    }
    (part / "episode.json").write_text(json.dumps(header, indent=1) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(part, folder)


def read_header(folder: Path, *, verify: bool = True) -> dict:
    """episode.json as a dict, once format, version, the files' presence and (verify) checksums are as they should."""
    folder = Path(folder)
    path = folder / "episode.json"
    if not path.is_file():
        raise EpisodeError(f"{folder}: expected a file episode.json, got none")
    try:
        header = json.loads(path.read_text())
    except ValueError as error:
        raise EpisodeError(f"{path}: expected JSON, got text that does not parse: {error}") from error
    got = (header.get("format"), header.get("version")) if isinstance(header, dict) else type(header).__name__
    if got != (FORMAT, VERSION):
        raise EpisodeError(f"{path}: expected format and version {(FORMAT, VERSION)}, got {got}")
    missing = {"fps", "frames", "width", "height", "caption", "meta", "sha256"} - set(header)
    missing |= {"video.mp4", "arrays.safetensors"} - set(header.get("sha256", ()))
    if missing:
        raise EpisodeError(f"{path}: expected the entries {sorted(missing)}, got none of that name")
    for name, expected in header["sha256"].items():
        if not (folder / name).is_file():
            raise EpisodeError(f"{folder}: expected a file {name}, got none")
        if verify and (got := _sha256(folder / name)) != expected:
            raise EpisodeError(f"{folder / name}: expected sha256 {expected}, got {got}")
    return header


def read_episode(folder: Path, *, verify: bool = True, decoder: str = "auto") -> Episode:
    """Read one episode.

    verify: compare checksums, and the decoded frames with the recorded thumbs. decoder: "av", "opencv", or
    "auto" for the first of these that is installed, which is logged. Raises EpisodeError for a missing file,
    another version, a wrong checksum, a broken video, or arrays that do not fit.
    """
    folder = Path(folder)
    header = read_header(folder, verify=verify)
    try:
        arrays = load_file(folder / "arrays.safetensors")
    except SafetensorError as error:
        raise EpisodeError(f"{folder}/arrays.safetensors: expected safetensors, got {error}") from error
    if not {"c2w", "intrinsics", "thumbs"} <= set(arrays) <= set(_ARRAYS):
        raise EpisodeError(f"{folder}: expected arrays out of {_ARRAYS}, got {sorted(arrays)}")
    frames = decode_video(folder / "video.mp4", decoder=pick_decoder(decoder))
    expected = (header["frames"], header["height"], header["width"], 3)
    if frames.shape != expected:
        raise EpisodeError(f"{folder}/video.mp4: expected frames {expected}, got {frames.shape}")
    thumbs = arrays.pop("thumbs")
    if verify:
        _expect("thumbs", thumbs, (len(frames), GRID, GRID, 3), np.uint8)
        gap = np.abs(_thumbs(frames).astype(int) - thumbs).reshape(len(frames), -1).max(axis=1)
        if gap.max() > TOLERANCE:
            raise EpisodeError(
                f"{folder}/video.mp4: expected frames within {TOLERANCE}/255 of their recorded means, "
                f"got {gap.max()} at frame {gap.argmax()}"
            )
    return Episode(frames=frames, caption=header["caption"], fps=header["fps"], meta=header["meta"], **arrays)


def list_episodes(root: Path) -> list[Path]:
    """The episode folders under a split's folder, sorted by name; half-written ones are left out."""
    root = Path(root)
    if not root.is_dir():
        raise EpisodeError(f"{root}: expected a folder of episodes, got none")
    return sorted(path.parent for path in root.glob("[!.]*/episode.json"))


def pick_decoder(decoder: str) -> str:
    """The decoder to use: "av" or "opencv" as asked for, or for "auto" the first of them that is installed."""
    modules = {"av": "av", "opencv": "cv2"}
    if decoder == "auto":
        return _first_installed(tuple(modules.items()))
    if decoder not in modules:
        raise EpisodeError(f"decoder: expected one of {('auto', *modules)}, got {decoder!r}")
    if not _installed(modules[decoder]):
        raise EpisodeError(f"decoder: expected {decoder} to be installed, got no module {modules[decoder]}")
    return decoder


@cache  # so that the choice is logged once, not once an episode
def _first_installed(modules: tuple[tuple[str, str], ...]) -> str:
    for name, module in modules:
        if _installed(module):
            _log.info("video decoder: %s", name)
            return name
    raise EpisodeError(f"decoder: expected one of {[name for name, _ in modules]} to be installed, got none")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # an import hook that hides packages says so itself
        return False


def _thumbs(frames: np.ndarray) -> np.ndarray:
    """Means (T, GRID, GRID, 3) uint8 over a grid of frames uint8 (T, H, W, 3); what is left over at edges is cut."""
    t, h, w = frames.shape[:3]
    y, x = h // GRID, w // GRID
    cells = frames[:, : y * GRID, : x * GRID].reshape(t, GRID, y, GRID, x, 3)
    return np.round(cells.mean(axis=(2, 4), dtype=np.float32)).astype(np.uint8)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
