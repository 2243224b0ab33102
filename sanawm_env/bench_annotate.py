"""How exact `sanawm annotate` is: videos of rooms with known cameras, annotated and compared.

    python -m sanawm_env.bench_annotate --out annotate_bench

Renders ROOMS, encodes them as videos of usual compression, annotates them without telling anything about the camera but
a guess of the scene's depth, and compares poses after a similarity alignment. With `--fov` the field of view is told.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sanawm_env.data import DEFAULT_FOV, FPS, plan_episode, render_episode
from world_model.train.data.annotate import AnnotateConfig, annotate
from world_model.train.data.annotate_join import align_positions, angles, mean_rotation
from world_model.train.data.annotate_shot import Search
from world_model.train.data.episode import Episode, read_episode, write_episode
from world_model.train.data.video import encode_video

ROOMS = (
    "strafe",
    "strafe",
    "orbit",
    "orbit",
    "orbit",
    "forward",
    "forward",
    "drive",
    "drive",
    "random",
    "random",
    "yaw",
)
CRF = 20


@dataclass(frozen=True, kw_only=True)
class Row:
    """One video; NaN where nothing was written."""

    room: str
    walked: float  # metres, truly
    turned: float  # degrees between the two views furthest apart, truly
    covered: float  # share of the frames that are in an episode
    registered: float  # share of the frames tried that got a pose
    rotation: float  # mean degrees after alignment
    position: float  # mean metres after alignment
    position_share: float  # the same as a share of the true path's extent
    focal: float  # error as a share
    lens: str
    said: str  # what annotate complained about


def compare(found: Episode, truth: Episode, start: int) -> tuple[float, float, float, float]:
    """Mean rotation (degrees) and position error (metres, share of the extent) after alignment; focal error.

    start: the frame of `truth` at which `found` begins.
    """
    est, true = found.c2w.astype(float), truth.c2w[start : start + len(found.c2w)].astype(float)
    off = np.nan  # of a camera that does not move there is nothing to align
    if np.ptp(true[:, :3, 3], axis=0).max() > 1e-6:
        move = align_positions(est[:, :3, 3], true[:, :3, 3])
        off = np.linalg.norm(move.points(est[:, :3, 3]) - true[:, :3, 3], axis=1).mean()
    turn = mean_rotation(true[:, :3, :3] @ est[:, :3, :3].transpose(0, 2, 1))
    rotation = np.degrees(angles(turn @ est[:, :3, :3], true[:, :3, :3]).mean())
    extent = np.linalg.norm(np.ptp(true[:, :3, 3], axis=0))
    scale = truth.frames.shape[2] / found.frames.shape[2]
    focal = found.intrinsics[0, 0] * scale / truth.intrinsics[0, 0] - 1
    return float(rotation), float(off), float(off / max(extent, 1e-6)), float(focal)


def render(out: Path, index: int, kind: str, size: int, frames: int) -> tuple[Path, Episode]:
    """A room's video and its truth, drawn once."""
    name = f"{index:02d}-{kind}"
    folder, video = out / "truth" / name, out / "videos" / f"{name}.mp4"
    if not (folder / "episode.json").is_file():
        place = 100 * index
        # Half of all rooms are seen through the very lens that annotate guesses: those would flatter it.
        while plan_episode("val", place, kind=kind, frames=frames).fov == DEFAULT_FOV:
            place += 1
        write_episode(folder, render_episode("val", place, kind=kind, frames=frames, size=size))
    truth = read_episode(folder)
    if not video.is_file():
        video.parent.mkdir(parents=True, exist_ok=True)
        encode_video(video, truth.frames, FPS, crf=CRF, colour="yuv420p")
    return video, truth


def measure(out: Path, count: int, size: int, frames: int, *, tell_lens: bool, every: int) -> list[Row]:
    """A row a room. tell_lens: annotate is given the true field of view."""
    rows = []
    for index, kind in enumerate(ROOMS[:count]):
        video, truth = render(out, index, kind, size, frames)
        fov = float(np.degrees(2 * np.arctan(size / 2 / truth.intrinsics[0, 0]))) if tell_lens else None
        folder = out / f"found-{'given' if tell_lens else 'unknown'}-{every}"
        search = Search(every=every)
        (report,) = annotate(
            AnnotateConfig(videos=(video,), out=folder, scene_depth=3.0, field_of_view=fov, search=search)
        )
        rows.append(_row(video.stem, truth, folder, report))
        print(json.dumps(dataclasses.asdict(rows[-1])), flush=True)
    return rows


def _row(name: str, truth: Episode, folder: Path, report: dict) -> Row:
    pieces = [piece for piece in report["pieces"] if piece["episodes"]]
    said = "; ".join(reason for piece in report["pieces"] for reason in piece["reasons"]) or report["refused"]
    episodes = [(read_episode(folder / e), int(e.rsplit("-", 1)[1])) for piece in pieces for e in piece["episodes"]]
    errors = np.array([compare(found, truth, start) for found, start in episodes]).reshape(-1, 4)
    weights = [len(found.frames) for found, _ in episodes]
    mean = np.average(errors, axis=0, weights=weights) if len(errors) else np.full(4, np.nan)
    rotations = truth.c2w[:, :3, :3].astype(float)
    path = truth.c2w[:, :3, 3].astype(float)
    return Row(
        room=name,
        walked=float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum()),
        turned=float(np.degrees(angles(rotations[:, None], rotations[None]).max())),
        covered=sum(weights) / len(truth.frames),
        registered=float(np.mean([piece["quality"]["registered"] for piece in pieces])) if pieces else np.nan,
        rotation=mean[0],
        position=mean[1],
        position_share=mean[2],
        focal=mean[3],
        lens=pieces[0]["lens"] if pieces else "",
        said=said,
    )


def markdown(rows: Sequence[Row]) -> str:
    head = (
        "| room | path m | turns ° | covered | RotErr ° | TransErr m | of extent | focal | lens | left out |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---|---|"
    )
    lines = [
        f"| {row.room} | {row.walked:.2f} | {row.turned:.0f} | {row.covered:.0%} | {row.rotation:.2f} | "
        f"{row.position:.3f} | {row.position_share:.1%} | {row.focal:+.1%} | {row.lens} | {row.said} |"
        for row in rows
    ]
    return "\n".join([head, *lines]).replace("+nan%", "–").replace("nan%", "–").replace("nan", "–")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rooms", type=int, default=len(ROOMS))
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--frames", type=int, default=97)
    parser.add_argument("--every", type=int, default=2, help="frames a registered one")
    parser.add_argument("--fov", action="store_true", help="tell the true field of view")
    given = parser.parse_args()
    rows = measure(given.out, given.rooms, given.size, given.frames, tell_lens=given.fov, every=given.every)
    print(markdown(rows))


if __name__ == "__main__":
    main()
