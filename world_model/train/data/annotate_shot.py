"""From a video's frames to the paths of its pieces: look at every frame, cut into shots, register, join, smooth.

Legend: T frames of a piece, P points.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from world_model.errors import InputError, require
from world_model.train.data import annotate_sfm as sfm
from world_model.train.data.annotate_filters import Limits, Quality, blurred, sharpness, shots, thumb
from world_model.train.data.annotate_footage import Footage
from world_model.train.data.annotate_join import Chunk, join, spans
from world_model.train.data.annotate_parallax import parallax
from world_model.train.data.annotate_smooth import fill, pieces, smooth, steady

GUESS = np.radians(70)  # field of view along the longer side, where the user gives none


@dataclass(frozen=True, kw_only=True)
class Search:
    """How paths are searched for; counts are of frames at the episodes' rate unless told."""

    working: int = 640  # pixels of the longer side in which features are found
    every: int = 2  # only each such frame is registered, those between get poses from their neighbours
    chunk: int = 64  # registered frames a chunk
    overlap: int = 20  # of them, shared with the next chunk
    max_gap: int = 4  # longest hole that is filled
    smooth: int = 2  # frames on either side that a pose is smoothed with
    shortest: int = 33  # pieces with fewer frames are left out
    threads: int = 1
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name, least in (("working", 64), ("every", 1), ("shortest", 5), ("threads", 1), ("smooth", 0)):
            require(getattr(self, name) >= least, f"{name}: expected >= {least}, got {getattr(self, name)}")
        require(self.max_gap >= self.every, f"max_gap: expected >= every ({self.every}), got {self.max_gap}")
        require(0 < 2 * self.overlap <= self.chunk, f"overlap: expected 1 to {self.chunk // 2}, got {self.overlap}")


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one look at every frame tells."""

    thumbs: np.ndarray  # (frames, GRID, GRID)
    sharp: np.ndarray  # (frames,)
    size: tuple[int, int]  # of the working pictures, (H, W)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Frames [first, end) of a video, with a path or without one."""

    first: int
    end: int
    c2w: np.ndarray | None = None  # (T, 4, 4) float64, in a unit of its own
    points: np.ndarray | None = None  # (P, 3), the same unit
    depth: float = 0.0  # the median of what is seen, the same unit
    focal: float = 0.0  # in widths of the picture
    lens: str = ""  # estimated, given or guessed
    quality: Quality | None = None
    reason: str = ""  # why there is no path


def survey(footage: Footage, folder: Path, search: Search) -> Survey:
    """Look at every frame once; the working pictures that may be registered are left in `folder`."""
    thumbs, sharp, size = [], [], (0, 0)
    for frame, grey in enumerate(footage.small(np.arange(len(footage.stamps)), search.working)):
        if frame and grey.shape != size:
            raise InputError(f"{footage.path}: expected pictures of one size, got {size} and {grey.shape}")
        size = grey.shape
        thumbs.append(thumb(grey))
        sharp.append(sharpness(grey))
        if frame % search.every == 0:
            sfm.write_picture(folder, frame, grey)
    return Survey(thumbs=np.array(thumbs), sharp=np.array(sharp), size=size)


def find_paths(footage: Footage, folder: Path, search: Search, field_of_view: float | None) -> list[Stretch]:
    """All stretches of a video in order. field_of_view: horizontal, radians; None where it is not known."""
    seen = survey(footage, folder, search)
    found = []
    for first, end in shots(seen.thumbs):
        if end - first < search.shortest:
            found.append(Stretch(first=first, end=end, reason="a cut: the shot is too short"))
        else:
            found += _shot(first, end, seen, folder, search, field_of_view)
    return found


def _shot(
    first: int, end: int, seen: Survey, folder: Path, search: Search, field_of_view: float | None
) -> list[Stretch]:
    width = seen.size[1]
    side, angle = (max(seen.size), GUESS) if field_of_view is None else (width, field_of_view)
    focal = side / 2 / np.tan(angle / 2)
    blur = blurred(seen.sharp[first:end], search.limits.sharpness)
    tried = np.array([i for i in range(first, end) if i % search.every == 0 and not blur[i - first]])
    chunks, lens = [], "guessed"
    if len(tried) >= sfm.FEWEST:
        shot = sfm.match(folder, tried.tolist(), seen.size, focal, search.threads)
        chunks, lens = map_shot(shot, tried, focal, search, known=field_of_view is not None)
    stretches = []
    for path in join(chunks):
        depth = float(np.median(path.depth))
        keep = steady(path.frames, path.c2w, depth)
        for piece in pieces(path.frames[keep], search.max_gap):
            if len(piece) >= 2 and piece[-1] + 1 - piece[0] >= search.shortest:
                known = np.isin(path.frames, piece) & keep
                among = tried[(tried >= piece[0]) & (tried <= piece[-1])]
                share = float(blur[piece[0] - first : piece[-1] + 1 - first].mean())
                stretches.append(_stretch(path, known, depth, len(piece) / len(among), share, width, lens, search))
    return _with_holes(_apart(stretches), first, end, search)


def map_shot(
    shot: sfm.Shot, tried: np.ndarray, focal: float, search: Search, *, known: bool
) -> tuple[list[Chunk], str]:
    """The chunks that have a path, all of one focal length, and where that length comes from.

    With several chunks, each that shows the focal length has a vote; then all are mapped again with the median.
    """
    parts = [tried[first:end].tolist() for first, end in spans(len(tried), search.chunk, search.overlap)]
    chunks = [sfm.map_chunk(shot, part, focal, hold=known) for part in parts]
    if known:
        return [chunk for chunk in chunks if chunk is not None], "given"
    votes = [chunk.focal for chunk in chunks if chunk is not None and chunk.focal != focal]
    if votes and len(parts) > 1:
        agreed = float(np.median(votes))
        chunks = [sfm.map_chunk(shot, part, agreed, hold=True) for part in parts]
    return [chunk for chunk in chunks if chunk is not None], "estimated" if votes else "guessed"


def _stretch(
    path: Chunk, known: np.ndarray, depth: float, registered: float, blur: float, width: int, lens: str, search: Search
) -> Stretch:
    frames = path.frames[known]
    c2w = smooth(fill(frames, path.c2w[known]), search.smooth)
    centres = c2w[:, :3, 3]
    within = np.isin(path.seen[:, 0], frames)
    quality = Quality(
        registered=registered,
        blurred=blur,
        extent=float(np.linalg.norm(np.ptp(centres, axis=0)) / depth),
        parallax=parallax(path.seen[:, 0][within], path.point[within], path.pixel[within], path.focal),
        error=path.error,
        speed=float(np.linalg.norm(np.diff(centres, axis=0), axis=1).max() / depth),
    )
    return Stretch(
        first=int(frames[0]),
        end=int(frames[-1]) + 1,
        c2w=c2w,
        points=path.points,
        depth=depth,
        focal=path.focal / width,
        lens=lens,
        quality=quality,
    )


def _apart(stretches: list[Stretch]) -> list[Stretch]:
    """Of stretches that share frames (chunks that could not be joined), the later ones give way."""
    kept: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda stretch: stretch.first):
        if kept and stretch.first < kept[-1].end:
            cut = kept[-1].end - stretch.first
            if cut >= len(stretch.c2w) - 1:
                continue
            stretch = Stretch(**{**vars(stretch), "first": kept[-1].end, "c2w": stretch.c2w[cut:]})
        kept.append(stretch)
    return kept


def _with_holes(stretches: list[Stretch], first: int, end: int, search: Search) -> list[Stretch]:
    """Stretches of [first, end), and between them what has no path."""
    result, place = [], first
    for stretch in [*stretches, Stretch(first=end, end=end)]:
        if stretch.first - place > search.max_gap:
            result.append(Stretch(first=place, end=stretch.first, reason="failed registration"))
        result.append(stretch)
        place = stretch.end
    return result[:-1]
