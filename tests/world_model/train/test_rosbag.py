"""ROS bags of both versions, written here: a camera on a robot that drives a curve."""

import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from world_model.errors import EpisodeError, InputError
from world_model.train.data import ros_messages
from world_model.train.data.source import open_entries
from world_model.train.data.transforms import Motion, chain, covered, poses_in, slerp

av = pytest.importorskip("av", reason="pictures are compressed by av")
pytest.importorskip("rosbags", reason="extra rosbag")
from rosbags.rosbag1 import Writer as Writer1  # noqa: E402
from rosbags.rosbag2 import StoragePlugin  # noqa: E402
from rosbags.rosbag2 import Writer as Writer2  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402

H, W, FRAMES = 24, 32, 41
BASE = 1_700_000_000.0  # seconds; a robot's clock
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # an optical frame in a body frame: x right, y down, z forward
ROS1 = get_typestore(Stores.ROS1_NOETIC)
ROS1.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage"))
STORES = {1: ROS1, 2: get_typestore(Stores.ROS2_JAZZY)}


def drive(t: float) -> tuple[tuple[float, float, float], tuple[float, float, float, float]]:
    """Position and quaternion of the robot's body: a metre a second round a circle of two metres, to the left."""
    angle = t / 2
    return (2 * np.sin(angle), 2 - 2 * np.cos(angle), 0.0), (0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2))


class Make:
    """Messages of one ROS version."""

    def __init__(self, version: int) -> None:
        self.version, self.store = version, STORES[version]

    def __call__(self, kind: str, *values: object) -> object:
        return self.store.types[kind](*values)

    def header(self, t: float, frame: str) -> object:
        nanoseconds = round((BASE + t) * 1e9)
        stamp = self("builtin_interfaces/msg/Time", nanoseconds // 10**9, nanoseconds % 10**9)
        return self("std_msgs/msg/Header", *((0,) if self.version == 1 else ()), stamp, frame)

    def image(self, i: int, t: float) -> object:
        """Columns brighter to the right; 5 * i more red; rows padded by three bytes."""
        rgb = np.full((H, W, 3), 20, np.uint8)
        rgb[:, :, 0] += np.uint8(5 * i)
        rgb[:, :, 2] += np.arange(W, dtype=np.uint8)
        rows = np.zeros((H, 3 * W + 3), np.uint8)
        rows[:, : 3 * W] = rgb[:, :, ::-1].reshape(H, -1)
        return self(
            "sensor_msgs/msg/Image", self.header(t, "camera_optical"), H, W, "bgr8", 0, 3 * W + 3, rows.reshape(-1)
        )

    def info(self, t: float, distortion: float = 0.0) -> object:
        k = np.array([40.0, 0, 15.5, 0, 41, 11.5, 0, 0, 1])
        p = np.array([39.0, 0, 14.5, 0, 0, 39, 10.5, 0, 0, 0, 1, 0])
        roi = self("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        head = self.header(t, "camera_optical")
        bent = np.array([distortion, 0, 0, 0, 0])
        return self("sensor_msgs/msg/CameraInfo", head, H, W, "plumb_bob", bent, k, np.eye(3).reshape(-1), p, 0, 0, roi)

    def pose(self, kinds: tuple[str, str], position: tuple, turn: tuple) -> tuple[object, object]:
        return self(f"geometry_msgs/msg/{kinds[0]}", *position), self("geometry_msgs/msg/Quaternion", *turn)

    def odometry(self, t: float) -> object:
        pose = self("geometry_msgs/msg/Pose", *self.pose(("Point", "Quaternion"), *drive(t)))
        zero = self("geometry_msgs/msg/Vector3", 0.0, 0.0, 0.0)
        twist = self("geometry_msgs/msg/Twist", zero, zero)
        with_pose = self("geometry_msgs/msg/PoseWithCovariance", pose, np.zeros(36))
        with_twist = self("geometry_msgs/msg/TwistWithCovariance", twist, np.zeros(36))
        return self("nav_msgs/msg/Odometry", self.header(t, "odom"), "base_link", with_pose, with_twist)

    def tf(self, t: float, child: str, parent: str, position: tuple, turn: tuple) -> object:
        transform = self("geometry_msgs/msg/Transform", *self.pose(("Vector3", "Quaternion"), position, turn))
        stamped = self("geometry_msgs/msg/TransformStamped", self.header(t, parent), child, transform)
        return self("tf2_msgs/msg/TFMessage", [stamped])


def messages(make: Make, **options: object) -> list[tuple[float, str, str, object]]:
    """(received, topic, type, message): 16 pictures a second; poses 10 times a second, 0.3 s late."""
    poses = options.get("poses", "tf")
    kind = "tf2_msgs/msg/TFMessage"
    rows = [(0.0, "/tf_static", kind, make.tf(0, "camera_link", "base_link", (0.1, 0, 0.5), (0, 0, 0, 1)))]
    rows.append((0.0, "/tf_static", kind, make.tf(0, "camera_optical", "camera_link", (0, 0, 0), OPTICAL)))
    for i in range(FRAMES):
        t = i / 16
        rows.append((t, "/image", "sensor_msgs/msg/Image", make.image(i, t)))
        rows.append((t, "/info", "sensor_msgs/msg/CameraInfo", make.info(t, options.get("distortion", 0.0))))
    for i in range(26):
        t = i / 10
        if t in options.get("silent", ()):
            continue
        if poses == "odometry":
            rows.append((t + 0.3, "/odom", "nav_msgs/msg/Odometry", make.odometry(t)))
        else:
            rows.append((t + 0.3, "/tf", "tf2_msgs/msg/TFMessage", make.tf(t, "/base_link", "odom", *drive(t))))
    return sorted(rows, key=lambda row: row[0])


def write_bag(
    path: Path,
    version: int,
    rows: list[tuple[float, str, str, object]],
    *,
    storage: StoragePlugin = StoragePlugin.SQLITE3,
    layout: int = 9,
) -> Path:
    """storage, layout: of ROS 2; bags of layout 8 in sqlite3 do not define their messages."""
    store = STORES[version]
    with Writer1(path) if version == 1 else Writer2(path, version=layout, storage_plugin=storage) as writer:
        kinds = dict.fromkeys(row[1:3] for row in rows)
        topics = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in kinds}
        serialise = store.serialize_ros1 if version == 1 else store.serialize_cdr
        for received, topic, kind, message in rows:
            writer.write(topics[topic], round((BASE + received) * 1e9), serialise(message, kind))
    return path


def describe(bag: Path, /, **changes: object) -> str:
    values = {"format": "rosbag", "path": bag.name, "image": "/image", "camera_info": "/info", "world": "odom"}
    file = bag.parent / "walk.json"
    file.write_text(json.dumps(values | changes))
    return str(file)


def camera_path(times: np.ndarray) -> np.ndarray:
    """What the camera of `messages` does, from its own start, worked out by hand: a circle around a point 2 m left.

    The camera sits 0.1 m ahead of the body's centre.
    """
    angle = times / 2
    c2w = np.tile(np.eye(4), (len(times), 1, 1))
    c2w[:, 0, 0], c2w[:, 0, 2], c2w[:, 2, 0], c2w[:, 2, 2] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    left = 2 - 2 * np.cos(angle) + 0.1 * np.sin(angle)
    ahead = 2 * np.sin(angle) + 0.1 * np.cos(angle) - 0.1
    c2w[:, 0, 3], c2w[:, 2, 3] = -left, ahead
    return c2w


@pytest.mark.parametrize("version", [1, 2])
def test_pictures_and_poses_of_both_versions(tmp_path, version):
    bag = write_bag(tmp_path / ("walk.bag" if version == 1 else "walk"), version, messages(Make(version)))
    (entry,) = open_entries((describe(bag, caption="a yard"),), (H, W))
    assert entry.name == "walk/000000"
    episode = entry.read()
    assert (len(episode.frames), episode.caption, episode.fps) == (41, "a yard", 16.0)
    assert episode.frames[7, 3, 9].tolist() == [20 + 35, 20, 29]
    np.testing.assert_allclose(episode.intrinsics, np.tile([40, 41, 16, 12], (41, 1)))
    np.testing.assert_allclose(episode.c2w, camera_path(np.arange(41) / 16), atol=1e-3)  # chords of 0.1 s
    assert episode.meta["bag"] == bag.name


def test_mcap_and_compressed_pictures(tmp_path):
    make = Make(2)
    kind = "sensor_msgs/msg/CompressedImage"

    def packed(message: object) -> object:
        png = np.frombuffer(compressed("png", ros_messages.picture(message)), np.uint8)
        return make(kind, message.header, "rgb8; png compressed", png)

    rows = [
        (t, topic, kind, packed(message)) if topic == "/image" else (t, topic, its_kind, message)
        for t, topic, its_kind, message in messages(make)
    ]
    bag = write_bag(tmp_path / "walk", 2, rows, storage=StoragePlugin.MCAP)
    assert [file.suffix for file in bag.iterdir() if file.name != "metadata.yaml"] == [".mcap"]
    episode = open_entries((describe(bag),), (H, W))[0].read()
    assert episode.frames[7, 3, 9].tolist() == [20 + 35, 20, 29]
    np.testing.assert_allclose(episode.c2w, camera_path(np.arange(41) / 16), atol=1e-3)


def test_odometry_with_a_mount_and_a_body_frame(tmp_path):
    """Odometry alone, the camera's place in it given, as a frame whose x points forward; in a bag of the old layout."""
    rows = [row for row in messages(Make(2), poses="odometry") if not row[1].startswith("/tf")]
    bag = write_bag(tmp_path / "walk", 2, rows, layout=8)
    options = {"odometry": "/odom", "mount": [0.1, 0, 0.5, 0, 0, 0, 1], "camera_axes": "ros_body"}
    episode = open_entries((describe(bag, **options),), (H, W))[0].read()
    np.testing.assert_allclose(episode.c2w, camera_path(np.arange(41) / 16), atol=1e-3)


def test_odometry_counts_instead_of_tf(tmp_path):
    make = Make(2)
    rows = messages(make, poses="odometry")
    rows += [
        (t, "/tf", "tf2_msgs/msg/TFMessage", make.tf(t, "base_link", "map", (9, 9, 9), (0, 0, 0, 1))) for t in (0, 3)
    ]
    bag = write_bag(tmp_path / "walk", 2, sorted(rows, key=lambda row: row[0]))
    episode = open_entries((describe(bag, odometry="/odom"),), (H, W))[0].read()
    np.testing.assert_allclose(episode.c2w, camera_path(np.arange(41) / 16), atol=1e-3)


def test_long_bags_become_several_episodes(tmp_path):
    rows = [row for row in messages(Make(2)) if row[1] != "/info" or row[0] == 0]  # the lens is said once
    bag = write_bag(tmp_path / "walk", 2, rows)
    first, second, third = open_entries((describe(bag, seconds=1.0, fps=8, path="."),), (12, 12))
    assert [first.name, third.name] == ["walk/000000", "walk/000002"]
    assert second.where.endswith("walk from 0.9 s")
    assert len({entry.key for entry in (first, second, third)}) == 3
    episode = second.read()  # from the first picture after 0.933 s to the last before 1.867 s
    assert (episode.frames.shape, episode.fps) == ((8, 12, 12, 3), 8)
    np.testing.assert_allclose(episode.intrinsics[0], [20, 20.5, 6, 6])
    np.testing.assert_allclose(
        episode.c2w[4], camera_path(np.array([0.5]))[0], atol=2e-3
    )  # a circle: the same from anywhere


def test_frames_without_poses_are_cut(tmp_path):
    late = [row for row in messages(Make(2)) if row[1] != "/tf" or row[0] > 0.95]  # poses from 0.7 s on
    episode = open_entries((describe(write_bag(tmp_path / "walk", 2, late)),), (H, W))[0].read()
    assert len(episode.frames) == 41 - 12
    assert episode.frames[0, 0, 0, 0] == 20 + 5 * 12


def test_rectified_pictures_have_another_lens(tmp_path):
    bag = write_bag(tmp_path / "walk", 2, messages(Make(2), distortion=0.1))
    with pytest.raises(
        EpisodeError, match=r"walk from 0.0 s: camera_info: expected pictures without distortion, got plumb"
    ):
        open_entries((describe(bag),), (H, W))[0].read()
    episode = open_entries((describe(bag, rectified=True),), (H, W))[0].read()
    assert episode.intrinsics[0].tolist() == [39, 39, 15, 11]


def test_what_a_bag_lacks_is_named(tmp_path):
    bag = write_bag(tmp_path / "walk", 2, messages(Make(2), silent=(1.0, 1.1, 1.2)))
    for changes, message in (
        ({"image": "/nothing"}, r"walk: expected /nothing of type sensor_msgs/msg/Image or .*got .*'/image'"),
        ({"camera_info": "/image"}, r"walk: expected /image of type sensor_msgs/msg/CameraInfo"),
        ({"world": "map"}, r"expected transforms from camera_optical up to map, got camera_optical -> camera_link -> "),
        ({}, r"transforms of base_link in odom: expected a pose every 0.25 s, got none for 0.4 s at"),
        ({"max_gap": 0.5, "fps": 30}, r"expected footage of at least 27 frames a second, got 16"),
        ({"path": "nowhere"}, r"nowhere: expected a bag"),
    ):
        with pytest.raises(EpisodeError, match=message):
            open_entries((describe(bag, **changes),), (H, W))[0].read()
    assert len(open_entries((describe(bag, max_gap=0.5),), (H, W))[0].read().frames) == 41
    for changes, message in (
        ({"mount": [1, 2, 3]}, "mount: expected x, y, z"),
        ({"mount": [0, 0, 0, 0, 0, 0, 1]}, "mount: expected a topic of odometry"),
        ({"seconds": 0}, "max_gap, seconds, fps: expected > 0"),
    ):
        with pytest.raises(InputError, match=message):
            open_entries((describe(bag, **changes),), (H, W))


def test_damaged_bags_are_named(tmp_path):
    bag = write_bag(tmp_path / "walk.bag", 1, messages(Make(1)))
    whole = bag.read_bytes()
    bag.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EpisodeError, match=r"walk.bag: expected a ROS bag"):
        open_entries((describe(bag),), (H, W))
    second = write_bag(tmp_path / "drive", 2, messages(Make(2)))
    (database,) = second.glob("*.db3")
    database.write_bytes(b"no database, whatever its name says" * 100)
    with pytest.raises(EpisodeError, match=r"drive: expected a ROS bag"):
        open_entries((describe(second),), (H, W))[0].read()


def compressed(codec: str, rgb: np.ndarray) -> bytes:
    layout = {"mjpeg": "yuvj444p", "png": "rgb24"}[codec]
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = (
        rgb.shape[1],
        rgb.shape[0],
        layout,
        Fraction(1, 16),
    )
    if codec == "mjpeg":
        encoder.options = {"q": "1", "qmin": "1", "qmax": "1"}
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    out = io.BytesIO()
    for packet in [*encoder.encode(picture), *encoder.encode(None)]:
        out.write(bytes(packet))
    return out.getvalue()


@pytest.mark.parametrize(("codec", "tolerance"), [("mjpeg", 6), ("png", 0)])
def test_compressed_pictures(codec, tolerance):
    """The whole range of every colour: neither the matrix nor the range is guessed wrongly."""
    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[:16] = np.linspace(0, 255, 48)[:, None].astype(np.uint8)
    for c in range(3):
        rgb[16:, 16 * c : 16 * c + 16, c] = 230
    data = compressed(codec, rgb)
    message = Make(2)("sensor_msgs/msg/CompressedImage", Make(2).header(0, "c"), codec, np.frombuffer(data, np.uint8))
    assert np.abs(ros_messages.picture(message).astype(int) - rgb).mean(axis=(0, 1)).max() <= tolerance / 2
    cut = Make(2)("sensor_msgs/msg/CompressedImage", Make(2).header(0, "c"), codec, np.frombuffer(data[:30], np.uint8))
    with pytest.raises(EpisodeError, match="expected a whole JPEG or PNG"):
        ros_messages.picture(cut)


def test_encodings():
    make = Make(2)
    data = np.arange(2 * 3 * 4, dtype=np.uint8)

    def message(encoding: str, step: int) -> object:
        return make("sensor_msgs/msg/Image", make.header(0, "c"), 2, 3, encoding, 0, step, data[: 2 * step])

    assert ros_messages.picture(message("rgba8", 12))[1, 0].tolist() == [12, 13, 14]
    assert ros_messages.picture(message("bgra8", 12))[1, 0].tolist() == [14, 13, 12]
    assert ros_messages.picture(message("mono8", 4))[1, 2].tolist() == [6, 6, 6]
    with pytest.raises(EpisodeError, match=r"expected an encoding among \['rgb8'.*got '16UC1'"):
        ros_messages.picture(message("16UC1", 12))
    with pytest.raises(EpisodeError, match="at least 9 bytes, got 8 bytes in rows of 4"):
        ros_messages.picture(message("rgb8", 4))


def motion(parent: str, times: list[float], x: list[float], angle: list[float]) -> Motion:
    """Along x, turning about z."""
    zero = np.zeros(len(x))
    half = np.array(angle) / 2
    xyzw = np.stack([zero, zero, np.sin(half), np.cos(half)], 1)
    return Motion(parent=parent, times=np.array(times), position=np.stack([x, zero, zero], 1), xyzw=xyzw)


def test_transforms_are_chained_and_interpolated():
    frames = {"tool": motion("base", [], [1.0], [0.0]), "base": motion("map", [0.0, 1.0], [0.0, 2.0], [0.0, 1.0])}
    assert chain(frames, "tool", "map") == ["tool", "base"]
    assert covered(frames, "tool", "map") == (0.0, 1.0)
    assert covered(frames, "tool", "base") == (-np.inf, np.inf)
    (pose,) = poses_in(frames, "tool", "map", np.array([0.25]), 1.0)
    np.testing.assert_allclose(pose[:2, 3], [0.5 + np.cos(0.25), np.sin(0.25)])
    np.testing.assert_allclose(pose[:2, 0], [np.cos(0.25), np.sin(0.25)])
    with pytest.raises(EpisodeError, match=r"base in map: expected times in 0.000 to 1.000 s, got 0.500, 1.500"):
        poses_in(frames, "tool", "map", np.array([0.5, 1.5]), 1.0)
    with pytest.raises(EpisodeError, match=r"base in map: expected a pose every 0.5 s, got none for 1 s at 0.500"):
        poses_in(frames, "tool", "map", np.array([0.5]), 0.5)
    with pytest.raises(EpisodeError, match="got tool -> base and no more"):
        chain(frames | {"base": motion("tool", [], [0.0], [0.0])}, "tool", "map")


def test_slerp_goes_the_shorter_way_at_even_speed():
    angles = np.array([[0.0, 1.0], [0.0, 1e-9], [3.0, -3.0]])
    a, b = (motion("", [], [0.0] * 3, list(angles[:, side])).xyzw for side in (0, 1))
    middle = slerp(a, b, np.full((3, 1), 0.25))
    np.testing.assert_allclose(np.linalg.norm(middle, axis=1), 1)
    turned = 2 * np.arctan2(middle[:, 2], middle[:, 3])
    expected = [0.25, 0.25e-9, 3.0 + 0.25 * (2 * np.pi - 6)]
    np.testing.assert_allclose(np.cos(turned - expected), 1, atol=1e-12)
