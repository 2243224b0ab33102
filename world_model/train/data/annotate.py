"""Find camera poses and lens of videos that have none, and write them as episodes for training.

    sanawm annotate walks/*.mp4 --out footage/train --camera-height 1.5

By structure from motion (pycolmap, extra `annotate`). What is unfit is left out with a reason: blur, cuts, too little
motion, failed registration. OUT/report.json and a table say what became of every video. Running the command again
takes only videos that are new or changed. Structure from motion does not know metres, so one option must:

    --camera-height METRES        the camera's height over a floor that it sees
    --baseline START END METRES   how far the camera moved between two times in seconds; for a single video
    --reference FILE_OR_FOLDER    lines of `seconds x y z` in metres; of a folder, NAME.txt for NAME.mp4
    --scene-depth METRES          a guess: half of what is seen is nearer
"""

import dataclasses
import itertools
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from world_model.errors import EpisodeError, InputError, require
from world_model.train.data import annotate_sfm
from world_model.train.data.annotate_filters import complaints
from world_model.train.data.annotate_footage import Footage, open_footage
from world_model.train.data.annotate_report import Piece, VideoReport, as_json, read_reports, table, write_reports
from world_model.train.data.annotate_scale import (
    Baseline,
    CameraHeight,
    Path3D,
    Scale,
    SceneDepth,
    read_reference,
)
from world_model.train.data.annotate_shot import Search, Stretch, find_paths
from world_model.train.data.episode import write_episode
from world_model.train.data.recording import Recording, to_episode
from world_model.train.snapshot import digest

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AnnotateConfig:
    """Options of `sanawm annotate`. A caption is taken from NAME.txt beside NAME.mp4 where there is one."""

    videos: tuple[Path, ...]
    out: Path = Path("footage")
    fps: float = 16.0  # of the episodes
    size: tuple[int, int] = (128, 128)  # height and width of the episodes
    field_of_view: float | None = None  # horizontal, degrees, where it is known: better than any estimate
    camera_height: float | None = None
    baseline: tuple[float, float, float] | None = None
    reference: Path | None = None
    scene_depth: float | None = None
    caption: str = ""
    longest: float = 20.0  # seconds an episode; what is longer becomes several of equal length
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        given = [name for name in ("camera_height", "baseline", "reference", "scene_depth") if getattr(self, name)]
        require(
            len(given) == 1,
            f"metres: expected one of --camera-height, --baseline, --reference and --scene-depth, got {given}",
        )
        require(
            self.baseline is None or len(self.videos) == 1,
            f"--baseline: expected a single video, got {len(self.videos)}",
        )
        require(self.fps > 0 and self.longest > 0, f"fps, longest: expected > 0, got {self.fps}, {self.longest}")
        require(min(self.size) >= 8, f"size: expected at least 8 pixels a side, got {self.size}")
        angle = self.field_of_view
        require(angle is None or 10 <= angle <= 150, f"field_of_view: expected 10 to 150 degrees, got {angle}")
        stems = [path.stem for path in self.videos]
        twice = {stem for stem in stems if stems.count(stem) > 1}
        require(not twice, f"videos: expected different names, got several of {sorted(twice)}")
        missing = [str(path) for path in self.videos if not path.is_file()]
        require(not missing, f"videos: expected files, got none at {missing}")


def annotate(config: AnnotateConfig) -> list[dict[str, Any]]:
    """Annotate all videos that are new or changed; the reports of all of them, in the given order.

    A video that cannot be read is reported as refused, with the reason, and the others go on.
    """
    annotate_sfm.load()  # says at once what is missing
    reports = read_reports(config.out)
    for path in tqdm(config.videos, desc="annotate", unit="video"):
        before = reports.get(str(path))
        key = key_of(path, config)
        if before is not None and before["key"] == key:
            continue
        for piece in before["pieces"] if before is not None else ():
            for name in piece["episodes"]:
                shutil.rmtree(config.out / name, ignore_errors=True)
        reports[str(path)] = as_json(_one(path, key, config))
        write_reports(config.out, list(reports.values()))
    return [reports[str(path)] for path in config.videos]


def key_of(path: Path, config: AnnotateConfig) -> str:
    """Another one whenever the video or what is asked of it may differ."""
    stat = path.stat()
    asked = dataclasses.asdict(config)
    for name in ("videos", "out"):
        del asked[name]
    del asked["search"]["threads"]
    return digest(json.dumps([asked, caption_of(path, config), stat.st_size, stat.st_mtime_ns], default=str).encode())


def caption_of(path: Path, config: AnnotateConfig) -> str:
    beside = path.with_suffix(".txt")
    return " ".join(beside.read_text().split()) if beside.is_file() else config.caption


def scale_of(path: Path, config: AnnotateConfig) -> Scale:
    """What the user knows about a video's size. Raises InputError for a reference that cannot be read."""
    if config.camera_height:
        return CameraHeight(config.camera_height)
    if config.baseline:
        return Baseline(*config.baseline)
    if config.scene_depth:
        return SceneDepth(config.scene_depth)
    given = config.reference or Path()
    return read_reference(given / f"{path.stem}.txt" if given.is_dir() else given)


def _one(path: Path, key: str, config: AnnotateConfig) -> VideoReport:
    scale = scale_of(path, config)
    angle = None if config.field_of_view is None else np.radians(config.field_of_view)
    try:
        footage = open_footage(path, config.fps)
        with tempfile.TemporaryDirectory(prefix="sanawm-annotate-") as folder:
            stretches = find_paths(footage, Path(folder), config.search, angle)
        found = tuple(_write(stretch, footage, scale, config) for stretch in stretches)
    except (EpisodeError, InputError) as error:
        log.warning("refused: %s", error)
        return VideoReport(video=str(path), key=key, seconds=0.0, pieces=(), refused=str(error))
    return VideoReport(video=str(path), key=key, seconds=len(footage.stamps) / config.fps, pieces=found)


def _write(stretch: Stretch, footage: Footage, scale: Scale, config: AnnotateConfig) -> Piece:
    """Write a stretch as episodes if it is fit."""
    piece = Piece(
        start=stretch.first / config.fps,
        seconds=(stretch.end - stretch.first) / config.fps,
        episodes=(),
        reasons=(stretch.reason,),
        quality=stretch.quality,
        field_of_view=float(np.degrees(2 * np.arctan(0.5 / stretch.focal))) if stretch.focal else None,
        lens=stretch.lens,
        metres=None,
    )
    if stretch.quality is None:
        return piece
    times = np.arange(stretch.first, stretch.end) / config.fps
    path = Path3D(times=times, c2w=stretch.c2w, points=stretch.points, depth=stretch.depth)
    reasons = list(complaints(stretch.quality, config.search.limits))
    metres = None
    try:
        metres = scale.metres(path)
    except EpisodeError as error:
        reasons.append(str(error))
    names = ()
    if not reasons:
        names = tuple(_episodes(stretch, footage, metres, config))
    return dataclasses.replace(piece, episodes=names, reasons=tuple(reasons), metres=metres)


def _episodes(stretch: Stretch, footage: Footage, metres: float, config: AnnotateConfig) -> Iterator[str]:
    """Write the episodes of a stretch; their names."""
    height, width = next(footage.pictures(np.array([stretch.first]))).shape[:2]
    c2w = stretch.c2w.copy()
    c2w[:, :3, 3] *= metres
    parts = int(np.ceil(len(c2w) / (config.longest * config.fps)))
    edges = np.linspace(0, len(c2w), parts + 1).round().astype(int)
    for first, end in itertools.pairwise(edges):
        start = stretch.first + int(first)
        recording = Recording(
            times=np.arange(end - first) / config.fps,
            c2w=c2w[first:end],
            intrinsics=np.array([stretch.focal * width, stretch.focal * width, width / 2, height / 2]),
            pictures=lambda indices, start=start: footage.pictures(start + indices),
            caption=caption_of(footage.path, config),
            meta={"video": footage.path.name, "start": start / config.fps, "lens": stretch.lens, "metres": metres},
        )
        name = f"{footage.path.stem}-{start:06d}"
        write_episode(config.out / name, to_episode(recording, config.fps, config.size))
        yield name


def main() -> int:
    """The command `sanawm annotate`: 0 when there is at least one episode."""
    import tyro

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    config = tyro.cli(
        AnnotateConfig, prog="sanawm annotate", description=__doc__, config=(tyro.conf.PositionalRequiredArgs,)
    )
    reports = annotate(config)
    print(table(reports))
    return 0 if any(report["kept"] for report in reports) else 1
