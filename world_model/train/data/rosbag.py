"""ROS bags: pictures (Image or CompressedImage) with a lens (CameraInfo) and poses (tf, or Odometry).

ROS 1 (`NAME.bag`) and ROS 2 (a folder with metadata.yaml; sqlite3 or mcap) alike, without ROS: needs rosbags (extra
`rosbag`), and av for compressed pictures. A long bag becomes several episodes of equal length. Times are those of
the headers; when a message was received only says in which piece of the bag to look for it.

Legend: T pictures of a piece.
"""

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from world_model.errors import EpisodeError, require, require_one_of
from world_model.train.data import ros_messages as ros
from world_model.train.data.episode import Episode
from world_model.train.data.poses import OPENCV_IN, with_opencv_axes
from world_model.train.data.recording import Recording, to_episode
from world_model.train.data.source import Entry, optional_module
from world_model.train.data.transforms import Motion, covered, poses_in
from world_model.train.snapshot import digest

MARGIN = 2 * 10**9  # ns: how much later than its stamp a pose may have been received
TYPES = {
    "image": ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
    "camera_info": ("sensor_msgs/msg/CameraInfo",),
    "odometry": ("nav_msgs/msg/Odometry",),
}


@dataclass(frozen=True, kw_only=True)
class RosBagSource:
    """`"format": "rosbag"`."""

    path: Path  # a bag, or a folder of bags
    image: str  # topic
    camera_info: str  # topic
    world: str  # frame in which the scene stands still: "map", "odom"
    odometry: str = ""  # topic; its pose counts instead of what /tf says about that frame
    mount: tuple[float, ...] = ()  # x, y, z, qx, qy, qz, qw of the camera in the odometry's child frame, if no tf says
    camera_frame: str = ""  # empty: the frame_id of the pictures
    camera_axes: str = "opencv"  # of that frame: an optical frame's are OpenCV's; or ros_body, opengl
    rectified: bool = False  # the pictures have been undistorted: the lens is P, not K
    max_gap: float = 0.25  # seconds between poses
    seconds: float = 60.0  # longest episode
    fps: float = 16.0
    caption: str = ""

    def __post_init__(self) -> None:
        require_one_of("camera_axes", self.camera_axes, *OPENCV_IN)
        positive = self.max_gap, self.seconds, self.fps
        require(min(positive) > 0, f"max_gap, seconds, fps: expected > 0, got {positive}")
        require(len(self.mount) in (0, 7), f"mount: expected x, y, z, qx, qy, qz, qw, got {self.mount}")
        require(
            not self.mount or bool(self.odometry), "mount: expected a topic of odometry that it belongs to, got none"
        )

    def entries(self, size: tuple[int, int]) -> list[Entry]:
        return [
            self._entry(piece, i, size) for bag in find_bags(self.path) for i, piece in enumerate(self._pieces(bag))
        ]

    def _pieces(self, bag: Path) -> list["Piece"]:
        with open_bag(bag) as reader:
            self._check_topics(bag, {name: info.msgtype for name, info in reader.topics.items()})
            first, length = reader.start_time, reader.end_time - reader.start_time
        count = max(1, math.ceil(length * 1e-9 / self.seconds))
        bounds = [first + length * i // count for i in range(count + 1)]
        return [Piece(bag=bag, start=start, stop=stop, first=first) for start, stop in pairwise(bounds)]

    def _check_topics(self, bag: Path, found: dict[str, str | None]) -> None:
        for role, topic in (("image", self.image), ("camera_info", self.camera_info), ("odometry", self.odometry)):
            if topic and found.get(topic) not in TYPES[role]:
                raise EpisodeError(f"{bag}: expected {topic} of type {' or '.join(TYPES[role])}, got {found}")

    def _entry(self, piece: "Piece", number: int, size: tuple[int, int]) -> Entry:
        files = sorted(piece.bag.iterdir()) if piece.bag.is_dir() else [piece.bag]
        stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return Entry(
            name=f"{piece.bag.name.removesuffix('.bag')}/{number:06d}",
            where=str(piece),
            key=digest(json.dumps([repr(self), repr(piece), size, stats]).encode()),
            read=partial(self._read, piece, size),
        )

    def _read(self, piece: "Piece", size: tuple[int, int]) -> Episode:
        try:
            with open_bag(piece.bag) as reader:
                return to_episode(self._recording(piece, reader), self.fps, size)
        except EpisodeError as error:
            raise EpisodeError(f"{piece}: {error}") from error

    def _recording(self, piece: "Piece", reader: Any) -> Recording:
        """The part of a piece for which there are poses."""
        headers = [(ros.stamp(message), message.header.frame_id) for message in piece.read(reader, self.image)]
        if not headers:
            raise EpisodeError(f"expected pictures on {self.image}, got none")
        camera = self.camera_frame or ros.frame_id(headers[0][1])
        frames = self._frames(piece, reader, camera)
        times = np.array([time for time, _ in headers])
        first, last = covered(frames, camera, self.world)
        kept = np.flatnonzero((times >= first) & (times <= last))
        if not len(kept):
            raise EpisodeError(
                f"expected poses of {camera} in {self.world} for {times[0]:.3f} to {times[-1]:.3f} s, "
                f"got them for {first:.3f} to {last:.3f} s"
            )
        lens, size = self._lens(piece, reader)
        return Recording(
            times=times[kept],
            c2w=with_opencv_axes(poses_in(frames, camera, self.world, times[kept], self.max_gap), self.camera_axes),
            intrinsics=np.array(lens),
            pictures=lambda chosen: pictures(piece.read(reader, self.image), kept[chosen], size),
            caption=self.caption,
            meta={"bag": piece.bag.name, "start": (piece.start - piece.first) * 1e-9},
        )

    def _frames(self, piece: "Piece", reader: Any, camera: str) -> dict[str, Motion]:
        frames = ros.transform_motions(piece.read(reader, "/tf", MARGIN), static=False)
        frames |= ros.transform_motions(read(reader, "/tf_static"), static=True)
        if self.odometry:
            child, motion = ros.odometry_motion(piece.read(reader, self.odometry, MARGIN))
            frames[child] = motion
            if self.mount:
                place, turn = np.array([self.mount[:3]]), np.array([self.mount[3:]])
                frames[camera] = Motion(parent=child, times=np.empty(0), position=place, xyzw=turn)
        return frames

    def _lens(self, piece: "Piece", reader: Any) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        """The one lens of a piece, and the size (height, width) of its pictures."""

        def lenses(messages: Iterator[Any]) -> set[tuple[tuple[float, float, float, float], tuple[int, int]]]:
            return {(ros.lens(m, rectified=self.rectified), (m.height, m.width)) for m in messages}

        # Some drivers say it once, when they start.
        said = lenses(piece.read(reader, self.camera_info)) or lenses(read(reader, self.camera_info))
        if len(said) != 1:
            raise EpisodeError(f"expected one and the same lens on {self.camera_info}, got {len(said)} of them")
        return said.pop()


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a bag, by the times in nanoseconds at which messages were received."""

    bag: Path
    start: int
    stop: int
    first: int  # when the bag begins

    def __str__(self) -> str:
        return f"{self.bag} from {(self.start - self.first) * 1e-9:.1f} s"

    def read(self, reader: Any, topic: str, margin: int = 0) -> Iterator[Any]:
        """The messages of a topic in this piece, and `margin` before and after it."""
        return read(reader, topic, self.start - margin, self.stop + margin)


def find_bags(path: Path) -> list[Path]:
    """The bag at `path`, or all bags in that folder. EpisodeError when there are none."""
    if path.suffix == ".bag" or (path / "metadata.yaml").exists():
        return [path]
    bags = [*path.glob("*.bag"), *(file.parent for file in path.glob("*/metadata.yaml"))]
    if not bags:
        raise EpisodeError(
            f"{path}: expected a bag (.bag, or a folder with metadata.yaml) or a folder of bags, got none"
        )
    return sorted(bags)


@contextlib.contextmanager
def open_bag(bag: Path) -> Iterator[Any]:
    """A rosbags reader; opening one is slow. EpisodeError for a bag that is missing or damaged."""
    highlevel = optional_module("rosbags.highlevel", "rosbag")
    from rosbags import rosbag1, rosbag2, typesys

    complaints = (highlevel.AnyReaderError, rosbag1.ReaderError, rosbag2.ReaderError, sqlite3.Error, OSError)
    older = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)  # bags of that age do not define their messages
    try:
        with highlevel.AnyReader([bag], default_typestore=older) as reader:
            yield reader
    except complaints as error:
        raise EpisodeError(f"{bag}: expected a ROS bag, got {type(error).__name__}: {error}") from error


def read(reader: Any, topic: str, start: int | None = None, stop: int | None = None) -> Iterator[Any]:
    """The messages of a topic in the order in which they were received; none if there is no such topic."""
    connections = [connection for connection in reader.connections if connection.topic == topic]
    if connections:  # to rosbags an empty list means all
        for connection, _, data in reader.messages(connections, start=start, stop=stop):
            yield reader.deserialize(data, connection.msgtype)


def pictures(messages: Iterator[Any], chosen: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Pictures uint8 (H, W, 3) number `chosen`, ascending, of some messages. EpisodeError unless they are of `size`."""
    wanted = {int(number) for number in chosen}
    for number, message in enumerate(messages):
        if number in wanted:
            picture = ros.picture(message)
            if picture.shape[:2] != size:
                raise EpisodeError(f"expected pictures of {size} as the lens says, got {picture.shape[:2]}")
            yield picture
