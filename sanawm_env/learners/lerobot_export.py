"""Recorded episodes as a LeRobot dataset, version 3. Needs pyarrow (extra `lerobot`), not LeRobot itself.

A row a step: what was seen, what was done, what came of it. The last observation of an episode has no action and is
left out, as LeRobot's own recorders do. `world_model/train/data/lerobot.py` tells the layout, and reads it back.

    observation.image     video, H.264, a picture a step
    observation.state     (9,) camera position in metres, and the first two columns of its rotation
    observation.pose      (4, 4) camera-to-world, relative to the start frame, metres, OpenCV axes
    observation.intrinsics (4,) fx, fy, cx, cy in pixels
    action                (A,) as given to the environment
    next.reward, next.done, next.success
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanawm_env.learners.episodes import Recorded
from sanawm_env.learners.instruction import instruction
from world_model.errors import InputError
from world_model.train.data.source import optional_module
from world_model.train.data.video import encode_video

IMAGE = "observation.image"
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
CRF = 10  # of H.264: about 1 of 255 away from what was seen; LeRobot's own default is 30
STATISTICS = ("min", "max", "mean", "std")


def export_lerobot(episodes: Sequence[Recorded], folder: Path, fps: float, task: str) -> None:
    """Write a dataset into `folder`, which must not be there. fps: steps a second, `env.metadata["render_fps"]`.

    task: what was to be done, as in `instruction`. Observations are pictures (H, W, 3) uint8, or dicts with such
    `pixels`; actions arrays or numbers. Raises InputError, and BackendError without pyarrow.
    """
    pyarrow, parquet = (optional_module(name, "lerobot") for name in ("pyarrow", "pyarrow.parquet"))
    if not episodes or folder.exists():
        raise InputError(f"export_lerobot: expected episodes and a new folder, got {len(episodes)} and {folder}")
    if fps != round(fps):
        raise InputError(f"fps: expected a whole number, which is all that LeRobot knows, got {fps}")
    tasks = [instruction(task, episode.prompt) for episode in episodes]
    names = list(dict.fromkeys(tasks))
    frames, rows, first = [], [], 0
    for i, (episode, text) in enumerate(zip(episodes, tasks, strict=True)):
        columns = features_of(episode)
        length = len(episode.actions)
        columns |= {
            "timestamp": np.arange(length, dtype=np.float32) / np.float32(fps),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, i),
            "index": first + np.arange(length),
            "task_index": np.full(length, names.index(text)),
        }
        frames.append(columns)
        rows.append(episode_row(i, first, length, text, fps) | statistics_of(episode, columns))
        first += length
    data, meta, video = (folder / name / "chunk-000" for name in ("data", "meta/episodes", f"videos/{IMAGE}"))
    for path in (data, meta, video):
        path.mkdir(parents=True)
    joined = {name: np.concatenate([columns[name] for columns in frames]) for name in frames[0]}
    parquet.write_table(pyarrow.table({n: as_column(pyarrow, v) for n, v in joined.items()}), data / "file-000.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), meta / "file-000.parquet")
    parquet.write_table(tasks_table(pyarrow, names), folder / "meta" / "tasks.parquet")
    pixels = np.concatenate([pictures(episode) for episode in episodes])
    encode_video(video / "file-000.mp4", pixels, fps, crf=CRF, colour="yuv420p")
    info = describe(joined, pixels.shape[1:], len(episodes), len(names), round(fps))
    (folder / "meta" / "info.json").write_text(json.dumps(info, indent=4))
    whole = statistics(joined) | picture_statistics(pixels)
    stats = {name: {key: np.asarray(value).tolist() for key, value in of.items()} for name, of in whole.items()}
    (folder / "meta" / "stats.json").write_text(json.dumps(stats, indent=4))


def pictures(episode: Recorded) -> np.ndarray:
    """What was seen before each action: (T, H, W, 3) uint8."""
    seen = [o["pixels"] if isinstance(o, dict) else o for o in episode.observations[:-1]]
    shape, dtype = np.shape(seen[0]), np.asarray(seen[0]).dtype
    if dtype != np.uint8 or len(shape) != 3 or shape[0] % 2 or shape[1] % 2:
        raise InputError(f"observations: expected pictures (H, W, 3) uint8 of even sides, got {shape} {dtype}")
    return np.stack(seen)


def features_of(episode: Recorded) -> dict[str, np.ndarray]:
    """The columns (T, ...) that tell what was seen and done."""
    poses, length = episode.poses[:-1], len(episode.actions)
    return {
        "observation.state": np.concatenate([poses[:, :3, 3], poses[:, :3, 0], poses[:, :3, 1]], 1).astype(np.float32),
        "observation.pose": poses.astype(np.float32),
        "observation.intrinsics": episode.intrinsics[:-1].astype(np.float32),
        "action": np.stack([np.asarray(action, np.float32).reshape(-1) for action in episode.actions]),
        "next.reward": episode.rewards.astype(np.float32),
        "next.done": (episode.terminated | episode.truncated).reshape(length),
        "next.success": episode.success[1:],
    }


def episode_row(index: int, first: int, length: int, task: str, fps: float) -> dict[str, Any]:
    """Where an episode lies. Everything is in the first file of its kind."""
    place = {
        f"{kind}/{name}_index": 0 for kind in ("data", f"videos/{IMAGE}", "meta/episodes") for name in ("chunk", "file")
    }
    return place | {
        "episode_index": index,
        "tasks": [task],
        "length": length,
        "dataset_from_index": first,
        "dataset_to_index": first + length,
        f"videos/{IMAGE}/from_timestamp": first / fps,
        f"videos/{IMAGE}/to_timestamp": (first + length) / fps,
    }


def statistics_of(episode: Recorded, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Those of an episode, as columns `stats/FEATURE/NAME` of its row."""
    of = statistics(columns) | picture_statistics(pictures(episode))
    return {f"stats/{name}/{key}": np.asarray(v).tolist() for name, each in of.items() for key, v in each.items()}


def statistics(columns: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Of each column, over its rows; at least one number each, as LeRobot wants."""
    found = {}
    for name, values in columns.items():
        rows = values.astype(np.float64).reshape(len(values), *(values.shape[1:] or (1,)))
        found[name] = {key: getattr(rows, key)(axis=0) for key in STATISTICS} | {"count": np.array([len(rows)])}
    return found


def picture_statistics(pixels: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Of the colours in [0, 1], each (3, 1, 1); count: pictures."""
    scaled = pixels.reshape(-1, 3).astype(np.float64) / 255
    of = {key: getattr(scaled, key)(axis=0).reshape(3, 1, 1) for key in STATISTICS}
    return {IMAGE: of | {"count": np.array([len(pixels)])}}


def describe(
    columns: dict[str, np.ndarray], shape: tuple[int, ...], episodes: int, tasks: int, fps: int
) -> dict[str, Any]:
    """meta/info.json."""
    features: dict[str, Any] = {
        name: {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1], "names": None}
        for name, values in columns.items()
    }
    video = {"video.height": shape[0], "video.width": shape[1], "video.channels": 3, "video.fps": fps}
    video |= {"video.codec": "h264", "video.pix_fmt": "yuv420p", "video.is_depth_map": False, "has_audio": False}
    features[IMAGE] = {"dtype": "video", "shape": list(shape), "names": ["height", "width", "channels"], "info": video}
    return {
        "codebase_version": "v3.0",
        "robot_type": "camera",
        "total_episodes": episodes,
        "total_frames": len(columns["index"]),
        "total_tasks": tasks,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": f"data/{FILE}.parquet",
        "video_path": f"videos/{{video_key}}/{FILE}.mp4",
        "features": features,
    }


def tasks_table(pyarrow: Any, names: Sequence[str]) -> Any:
    """Which task has which index. LeRobot reads it with pandas, whose index the tasks have to be."""
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
        for name, kind, dtype in (("task", "unicode", "object"), ("task_index", "int64", "int64"))
    ]
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.3.3"}
    table = pyarrow.table({"task_index": np.arange(len(names)), "task": list(names)})
    return table.replace_schema_metadata({"pandas": json.dumps(about)})


def as_column(pyarrow: Any, values: np.ndarray) -> Any:
    """(T, ...) as an arrow column of numbers, or of lists as deep as the feature."""
    return pyarrow.array(values if values.ndim == 1 else values.tolist(), column_type(pyarrow, values))


def column_type(pyarrow: Any, values: np.ndarray) -> Any:
    """The arrow type of a row."""
    kind = pyarrow.from_numpy_dtype(values.dtype)
    for _ in values.shape[1:]:
        kind = pyarrow.list_(kind)
    return kind
