"""LeRobot datasets, version 3: video, camera poses and a lens under the names that the user gives.

    meta/info.json                        version, fps, features, the patterns of the paths below
    meta/episodes/chunk-*/file-*.parquet  a row an episode: its length, and where it lies
    data/chunk-000/file-000.parquet       a row a frame, several episodes a file
    videos/KEY/chunk-000/file-000.mp4     pictures, several episodes a file, one after the other

LeRobot has no convention for camera poses, so the description says which feature holds them, and how.
Needs pyarrow (extra `lerobot`) and av.

Legend: T frames of an episode.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from world_model.errors import EpisodeError, InputError, require, require_one_of
from world_model.train.data.episode import Episode
from world_model.train.data.poses import LAYOUTS, OPENCV_IN, from_layout
from world_model.train.data.recording import Recording, to_episode
from world_model.train.data.source import Entry, optional_module
from world_model.train.data.video import decode_frames
from world_model.train.snapshot import digest


@dataclass(frozen=True, kw_only=True)
class LeRobotSource:
    """`"format": "lerobot"`."""

    path: Path  # the dataset's folder, which holds meta/
    video: str  # feature with the camera's pictures
    pose: str  # feature with the camera's pose, camera-to-world
    intrinsics: str | tuple[float, ...]  # feature with fx, fy, cx, cy or a 3x3 matrix; or the four numbers; pixels
    pose_layout: str = "matrix"  # or position_xyzw, position_wxyz: a quaternion after the position
    camera_axes: str = "opencv"  # or opengl, ros_body
    metres: float = 1.0  # a unit of the positions
    fps: float = 16.0  # of the episodes that come out
    caption: str = ""  # what the scene is; empty: the episode's task

    def __post_init__(self) -> None:
        require_one_of("pose_layout", self.pose_layout, *LAYOUTS)
        require_one_of("camera_axes", self.camera_axes, *OPENCV_IN)
        require(self.metres > 0 and self.fps > 0, f"metres, fps: expected > 0, got {self.metres}, {self.fps}")
        if not isinstance(self.intrinsics, str) and len(self.intrinsics) != 4:
            raise InputError(f"intrinsics: expected a feature's name or fx, fy, cx, cy, got {self.intrinsics}")

    def entries(self, size: tuple[int, int]) -> list[Entry]:
        info = read_info(self.path)
        self._check_features(info["features"])
        return [self._entry(self._locate(info, row), row, size) for row in read_rows(self.path)]

    def _check_features(self, features: dict[str, Any]) -> None:
        names = [self.video, self.pose] + ([self.intrinsics] if isinstance(self.intrinsics, str) else [])
        missing = [name for name in names if name not in features]
        if missing:
            raise EpisodeError(f"{self.path}: expected the features {missing}, got {sorted(features)}")
        if (got := features[self.video].get("dtype")) != "video":
            raise EpisodeError(f"{self.path}: expected {self.video} to be of dtype video, got {got!r}")

    def _locate(self, info: dict[str, Any], row: dict[str, Any]) -> "Span":
        video = f"videos/{self.video}"
        try:
            span = Span(
                index=row["episode_index"],
                length=row["length"],
                fps=info["fps"],
                data=self.path / _fill(info["data_path"], row, "data", self.video),
                video=self.path / _fill(info["video_path"], row, video, self.video),
                start=row[f"{video}/from_timestamp"],
            )
        except KeyError as error:
            raise EpisodeError(f"{self.path}/meta/episodes: expected a column {error}, got {sorted(row)}") from error
        for file in (span.data, span.video):
            if not file.is_file():
                raise EpisodeError(f"{self.path} episode {span.index}: expected a file {file}, got none")
        return span

    def _entry(self, span: "Span", row: dict[str, Any], size: tuple[int, int]) -> Entry:
        stats = [file.stat() for file in (span.data, span.video)]
        made_of = [repr(self), repr(span), size, *((stat.st_size, stat.st_mtime_ns) for stat in stats)]
        return Entry(
            name=f"{self.path.name}/{span.index:06d}",
            where=f"{self.path} episode {span.index}",
            key=digest(json.dumps(made_of).encode()),
            read=partial(self._read, span, self.caption or " ".join(row.get("tasks") or ()), size),
        )

    def _read(self, span: "Span", caption: str, size: tuple[int, int]) -> Episode:
        fixed = None if isinstance(self.intrinsics, str) else np.array(self.intrinsics, np.float64)
        try:
            arrays = read_columns(span, [self.pose] + ([self.intrinsics] if fixed is None else []))
            recording = Recording(
                times=np.arange(span.length) / span.fps,
                c2w=from_layout(arrays[self.pose], self.pose_layout, self.camera_axes, self.metres),
                intrinsics=_lenses(arrays[self.intrinsics]) if fixed is None else fixed,
                pictures=partial(decode_frames, span.video, span.start, span.fps),
                caption=caption,
                meta={"dataset": self.path.name, "episode": span.index},
            )
            return to_episode(recording, self.fps, size)
        except EpisodeError as error:
            raise EpisodeError(f"{self.path} episode {span.index}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where an episode lies."""

    index: int
    length: int  # T
    fps: float
    data: Path
    video: Path
    start: float  # seconds into the video file


def read_info(path: Path) -> dict[str, Any]:
    """meta/info.json. EpisodeError unless it is of version 3 and says what is needed."""
    file = path / "meta" / "info.json"
    try:
        info = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise EpisodeError(f"{file}: expected the description of a LeRobot dataset: {error}") from error
    version = info.get("codebase_version") if isinstance(info, dict) else type(info).__name__
    if not str(version).startswith("v3."):
        raise EpisodeError(f"{file}: expected codebase_version v3.x, got {version}")
    missing = {"fps", "features", "data_path", "video_path"} - info.keys()
    if missing:
        raise EpisodeError(f"{file}: expected the entries {sorted(missing)}, got {sorted(info)}")
    return info


def read_rows(path: Path) -> list[dict[str, Any]]:
    """meta/episodes: a dict an episode, by index, without the statistics."""
    parquet = optional_module("pyarrow.parquet", "lerobot")
    files = sorted((path / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise EpisodeError(f"{path}/meta/episodes: expected parquet files, got none")
    rows = []
    for file in files:
        with _naming(file):
            names = [name for name in parquet.read_schema(file).names if not name.startswith("stats/")]
            rows += parquet.read_table(file, columns=names).to_pylist()
    return sorted(rows, key=lambda row: row["episode_index"])


def read_columns(span: Span, columns: list[str]) -> dict[str, np.ndarray]:
    """Some features of an episode's frames in their order: (T, ...) each. EpisodeError unless there are T of them."""
    parquet = optional_module("pyarrow.parquet", "lerobot")
    with _naming(span.data):
        table = parquet.read_table(
            span.data, columns=["frame_index", *dict.fromkeys(columns)], filters=[("episode_index", "==", span.index)]
        )
    order = table["frame_index"].to_numpy()
    if sorted(order) != list(range(span.length)):
        raise EpisodeError(f"{span.data}: expected the frames 0 to {span.length - 1}, got {len(order)} rows")
    rows = np.argsort(order)
    try:
        return {name: np.array(table[name].to_pylist(), np.float64)[rows] for name in columns}
    except (TypeError, ValueError) as error:
        raise EpisodeError(f"{span.data}: expected as many numbers in every row of {columns}: {error}") from error


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """pyarrow's complaints about a file, with its name."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise EpisodeError(f"{file}: expected parquet with the columns of a LeRobot dataset, got {error}") from error


def _fill(pattern: str, row: dict[str, Any], kind: str, video: str) -> str:
    """A path out of meta/info.json's pattern, for the file that a row names."""
    return pattern.format(video_key=video, chunk_index=row[f"{kind}/chunk_index"], file_index=row[f"{kind}/file_index"])


def _lenses(values: np.ndarray) -> np.ndarray:
    """fx, fy, cx, cy (T, 4) or camera matrices (T, 3, 3), (T, 9) -> (T, 4)."""
    flat = values.reshape(len(values), -1)
    if flat.shape[1] not in (4, 9):
        raise EpisodeError(f"intrinsics: expected 4 numbers or a 3x3 matrix a frame, got {flat.shape[1]} numbers")
    return flat if flat.shape[1] == 4 else flat[:, [0, 4, 2, 5]]
