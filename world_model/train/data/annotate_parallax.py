"""Whether footage shows parallax at all, or whether a camera that only turns explains it. Pure numpy.

Structure from motion gives a turning camera a path too: with a slightly wrong lens, an arc about a point nearby. So a
path is believed only when turning alone, with the best lens for it, leaves the points off by more than noise.

Legend: M observations, N points that two frames share.
"""

import numpy as np

from world_model.train.data.annotate_join import mean_rotation

GAPS = (8, 16, 32)  # frames between the two that are compared
STEP = 4  # frames between first frames of pairs
FEWEST = 12  # points that a pair must share
PAIRS = 4  # pairs that a gap must have
QUARTER = 0.25  # of the pairs may show less: a few pairs with wrong matches show parallax where there is none
LENSES = np.geomspace(0.7, 1.4, 15)  # shares of the focal length that are tried


def parallax(frames: np.ndarray, points: np.ndarray, pixels: np.ndarray, focal: float) -> float:
    """What turning does not explain, in pixels: the lower quartile over pairs of frames, of the gap that shows most.

    frames (M,), points (M,) identities, pixels (M, 2) from the principal point. 0 where too few pairs do.
    """
    order = np.lexsort((points, frames))
    frames, points, pixels = frames[order], points[order], pixels[order]
    largest = 0.0
    for gap in GAPS:
        rests = []
        for first in range(int(frames.min()), int(frames.max()) - gap + 1, STEP):
            a, b = (slice(*np.searchsorted(frames, [f, f + 1])) for f in (first, first + gap))
            _, i, j = np.intersect1d(points[a], points[b], return_indices=True)
            if len(i) >= FEWEST:
                rests.append([turning_rest(pixels[a][i], pixels[b][j], focal * share) for share in LENSES])
        if len(rests) >= PAIRS:
            largest = max(largest, float(np.quantile(rests, QUARTER, axis=0).min()))
    return largest


def turning_rest(first: np.ndarray, second: np.ndarray, focal: float) -> float:
    """Median distance, in pixels, from where the best rotation takes points (N, 2) to where they are seen next."""
    a, b = (np.concatenate([p / focal, np.ones((len(p), 1))], 1) for p in (first, second))
    a, b = (ray / np.linalg.norm(ray, axis=1, keepdims=True) for ray in (a, b))
    turned = a @ mean_rotation(b[:, :, None] * a[:, None, :]).T
    off = turned[:, :2] / np.maximum(turned[:, 2:], 1e-3) * focal - second
    return float(np.median(np.linalg.norm(off, axis=1)))
