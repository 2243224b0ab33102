"""What makes footage unfit: blurred pictures, cuts, too little motion, failed registration. Pure numpy.

Legend: T frames, H W pixels.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from world_model.errors import InputError, require

GRID = 16  # a frame's change is seen on a grid of GRID x GRID means
AROUND = 8  # frames on either side that a frame is compared with
CUT_SHARE = 5.0  # a cut changes this many times more than the frames around it
CUT_LEAST = 0.06  # and at least this much, of the full range


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an episode must satisfy, else it is left out with a reason."""

    registered: float = 0.9  # share of the frames tried that got a pose
    blurred: float = 0.25  # largest share of blurred frames
    sharpness: float = 0.2  # below this share of its neighbours' sharpness a frame is blurred
    extent: float = 0.03  # smallest extent of the path, in median depths of the scene
    parallax: float = 0.8  # smallest displacement that turning alone leaves unexplained, pixels of the working picture
    error: float = 1.5  # largest median reprojection error, pixels of the working picture
    speed: float = 1.0  # largest step between frames, in median depths of the scene

    def __post_init__(self) -> None:
        for name in ("registered", "blurred", "sharpness"):
            require(0 <= getattr(self, name) <= 1, f"{name}: expected 0 to 1, got {getattr(self, name)}")
        for name in ("extent", "parallax", "error", "speed"):
            require(getattr(self, name) >= 0, f"{name}: expected >= 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well a piece of footage came out."""

    registered: float  # share of the frames tried that got a pose
    blurred: float  # share of all frames
    extent: float  # of the path, in median depths
    parallax: float  # what turning alone leaves unexplained, pixels of the working picture
    error: float  # median reprojection error, pixels of the working picture
    speed: float  # largest step between frames in median depths


def thumb(grey: np.ndarray) -> np.ndarray:
    """Means (GRID, GRID) in 0..1 of a picture uint8 (H, W), at least GRID pixels a side; what is left over is cut."""
    height, width = grey.shape
    if min(height, width) < GRID:
        raise InputError(f"picture: expected at least {GRID} pixels a side, got {grey.shape}")
    y, x = height // GRID, width // GRID
    return grey[: y * GRID, : x * GRID].reshape(GRID, y, GRID, x).mean(axis=(1, 3)) / 255


def sharpness(grey: np.ndarray) -> float:
    """Mean square of the Laplacian of a picture uint8 (H, W)."""
    g = grey.astype(np.float32)
    laplacian = g[1:-1, 2:] + g[1:-1, :-2] + g[2:, 1:-1] + g[:-2, 1:-1] - 4 * g[1:-1, 1:-1]
    return float(np.square(laplacian).mean())


def around(values: np.ndarray, half: int) -> np.ndarray:
    """The median (T,) of `half` values on either side of each, fewer at the ends, itself left out."""
    medians = np.empty(len(values))
    for i in range(len(values)):
        near = np.concatenate([values[max(0, i - half) : i], values[i + 1 : i + 1 + half]])
        medians[i] = np.median(near) if len(near) else values[i]
    return medians


def shots(thumbs: np.ndarray) -> list[tuple[int, int]]:
    """Runs of frames [first, end) between cuts, from thumbs (T, GRID, GRID)."""
    change = np.abs(np.diff(thumbs, axis=0)).mean(axis=(1, 2))  # (T - 1,)
    cut = (change > CUT_LEAST) & (change > CUT_SHARE * around(change, AROUND))
    edges = [0, *(np.flatnonzero(cut) + 1), len(thumbs)]
    return [(int(first), int(end)) for first, end in itertools.pairwise(edges)]


def blurred(sharp: np.ndarray, share: float) -> np.ndarray:
    """Which frames (T,) of a shot are less sharp than `share` of the median around them."""
    return sharp < share * around(sharp, 2 * AROUND)


def complaints(quality: Quality, limits: Limits) -> tuple[str, ...]:
    """Why a piece is unfit; empty when it is fit."""
    said = []
    if quality.registered < limits.registered:
        said.append(f"failed registration: {quality.registered:.0%} of its frames, expected {limits.registered:.0%}")
    if quality.blurred > limits.blurred:
        said.append(f"blur: {quality.blurred:.0%} of its frames, expected at most {limits.blurred:.0%}")
    if quality.extent < limits.extent:
        said.append(f"too little motion: a path of {quality.extent:.2g} depths, expected {limits.extent:g}")
    if quality.parallax < limits.parallax:
        said.append(f"too little parallax: {quality.parallax:.1f} pixels beyond turning, expected {limits.parallax:g}")
    if quality.error > limits.error:
        said.append(f"inexact: a reprojection error of {quality.error:.2f} pixels, expected {limits.error:g}")
    if quality.speed > limits.speed:
        said.append(f"a jump: {quality.speed:.2g} depths between two frames, expected at most {limits.speed:g}")
    return tuple(said)
