"""What ROS messages say, of ROS 1 and ROS 2 alike: pictures, lenses, and where frames are.

`message` is whatever rosbags makes of it: an object with the fields of the ROS definition.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from world_model.errors import EpisodeError
from world_model.train.data.transforms import Motion

CHANNELS = {
    "rgb8": (3, [0, 1, 2]),
    "bgr8": (3, [2, 1, 0]),
    "rgba8": (4, [0, 1, 2]),
    "bgra8": (4, [2, 1, 0]),
    "mono8": (1, [0, 0, 0]),
}  # encoding of sensor_msgs/Image -> bytes a pixel, where red, green and blue are
CODECS = {b"\xff\xd8": "mjpeg", b"\x89P": "png"}  # first two bytes of a CompressedImage


def stamp(message: Any) -> float:
    """Seconds of the header's stamp."""
    return message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec


def frame_id(name: str) -> str:
    """Old nodes write a slash before it."""
    return name.removeprefix("/")


def picture(message: Any) -> np.ndarray:
    """sensor_msgs/Image or CompressedImage -> uint8 (H, W, 3) RGB. EpisodeError for an encoding we do not know."""
    return _raw(message) if hasattr(message, "encoding") else _compressed(bytes(message.data))


def _raw(message: Any) -> np.ndarray:
    if message.encoding not in CHANNELS:
        raise EpisodeError(f"picture: expected an encoding among {list(CHANNELS)}, got {message.encoding!r}")
    count, order = CHANNELS[message.encoding]
    height, width, step = message.height, message.width, message.step
    if step < width * count or len(message.data) != height * step:
        raise EpisodeError(
            f"picture: expected {height} rows of at least {width * count} bytes, got {len(message.data)} bytes in "
            f"rows of {step}"
        )
    rows = np.asarray(message.data, np.uint8).reshape(height, step)[:, : width * count]  # rows may be padded
    return np.ascontiguousarray(rows.reshape(height, width, count)[:, :, order])


def _compressed(data: bytes) -> np.ndarray:
    import av

    if data[:2] not in CODECS:
        raise EpisodeError(f"picture: expected JPEG or PNG, got data that begins with {data[:8]!r}")
    codec = av.CodecContext.create(CODECS[data[:2]], "r")
    try:
        pictures = [*codec.decode(av.Packet(data)), *codec.decode(None)]
    except av.FFmpegError as error:
        raise EpisodeError(f"picture: expected a whole JPEG or PNG, got {error}") from error
    if len(pictures) != 1:
        raise EpisodeError(f"picture: expected a whole JPEG or PNG, got {len(pictures)} pictures in {len(data)} bytes")
    return pictures[0].to_ndarray(format="rgb24")


def lens(message: Any, *, rectified: bool) -> tuple[float, float, float, float]:
    """sensor_msgs/CameraInfo -> fx, fy, cx, cy with a pixel's centre at its index + 0.5 (ROS puts it at the index).

    Raises EpisodeError for a camera without calibration, and for distorted pictures: training knows pinholes only.
    """
    first_version = hasattr(message, "K")
    matrix = np.asarray(message.K if first_version else message.k).reshape(3, 3)
    projection = np.asarray(message.P if first_version else message.p).reshape(3, 4)
    distortion = np.asarray(message.D if first_version else message.d)
    if rectified:
        matrix = projection[:, :3]
    elif np.abs(distortion).max(initial=0) > 1e-6:
        raise EpisodeError(
            f"camera_info: expected pictures without distortion, got {message.distortion_model} "
            f"{distortion.round(4).tolist()}; take a rectified topic and say rectified"
        )
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise EpisodeError(
            f"camera_info: expected a calibrated camera, got focal lengths {matrix[0, 0]}, {matrix[1, 1]}"
        )
    return matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5


def odometry_motion(messages: Iterable[Any]) -> tuple[str, Motion]:
    """nav_msgs/Odometry -> the frame that moves, and how. EpisodeError when there is none."""
    rows = [(frame_id(m.child_frame_id), frame_id(m.header.frame_id), stamp(m), m.pose.pose) for m in messages]
    if not rows:
        raise EpisodeError("odometry: expected messages, got none")
    child, parent = rows[0][:2]
    return child, _motion(parent, [(t, pose.position, pose.orientation) for _, _, t, pose in rows])


def transform_motions(messages: Iterable[Any], *, static: bool) -> dict[str, Motion]:
    """tf2_msgs/TFMessage -> how each frame moves in its parent; where a parent changes, the last one counts."""
    rows: dict[str, list[tuple[float, Any, Any]]] = {}
    parents: dict[str, str] = {}
    for message in messages:
        for one in message.transforms:
            child, parent = frame_id(one.child_frame_id), frame_id(one.header.frame_id)
            if parents.setdefault(child, parent) != parent or static:
                rows[child] = []
            parents[child] = parent
            rows.setdefault(child, []).append((stamp(one), one.transform.translation, one.transform.rotation))
    motions = {child: _motion(parents[child], known) for child, known in rows.items()}
    return {name: forever(motion) for name, motion in motions.items()} if static else motions


def forever(motion: Motion) -> Motion:
    """The last known pose, holding at all times."""
    return Motion(parent=motion.parent, times=np.empty(0), position=motion.position[-1:], xyzw=motion.xyzw[-1:])


def _motion(parent: str, rows: list[tuple[float, Any, Any]]) -> Motion:
    """Poses in order of time; of several at one time the last."""
    known = {time: (place, turn) for time, place, turn in rows}
    times = sorted(known)
    return Motion(
        parent=parent,
        times=np.array(times),
        position=np.array([[known[t][0].x, known[t][0].y, known[t][0].z] for t in times]),
        xyzw=np.array([[known[t][1].x, known[t][1].y, known[t][1].z, known[t][1].w] for t in times]),
    )
