"""A path with holes and noise -> one pose a frame: outliers dropped, short holes filled, noise smoothed. Pure numpy.

Legend: K known poses, T frames.
"""

import numpy as np

from world_model.train.data.poses import rigid

OUTLIER = 8.0  # times what is usual around it
LEAST_TURN = np.radians(1.0)  # what is below is no outlier
LEAST_SHIFT = 0.02  # median depths
ROUNDS = 3
AROUND = 8  # known poses on either side


def exp(vector: np.ndarray) -> np.ndarray:
    """Rotation vectors (..., 3) in radians -> matrices (..., 3, 3) (Rodrigues)."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape[:-1], 3, 3)
    half = np.sinc(angle / (2 * np.pi))
    return np.eye(3) + np.sinc(angle / np.pi) * cross + half**2 / 2 * (cross @ cross)


def log(rotation: np.ndarray) -> np.ndarray:
    """Matrices (..., 3, 3) -> rotation vectors (..., 3), for angles below pi."""
    skew = (rotation - np.swapaxes(rotation, -1, -2))[..., [2, 0, 1], [1, 2, 0]] / 2
    sine = np.linalg.norm(skew, axis=-1, keepdims=True)
    cosine = (np.trace(rotation, axis1=-2, axis2=-1)[..., None] - 1) / 2
    return skew * np.where(sine > 1e-9, np.arctan2(sine, cosine) / np.maximum(sine, 1e-9), 1.0)


def between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Poses (T, 4, 4) at `share` (T,) of the way: straight in position, the shorter way round in rotation."""
    a, b = first[:, :3, :3], second[:, :3, :3]
    turned = a @ exp(share[:, None] * log(a.transpose(0, 2, 1) @ b))
    return rigid(turned, (1 - share[:, None]) * first[:, :3, 3] + share[:, None] * second[:, :3, 3])


def steady(frames: np.ndarray, c2w: np.ndarray, depth: float) -> np.ndarray:
    """Which of K known poses stay: those that the poses before, after or on both sides foretell about as well as usual.

    A camera that starts, stops or turns abruptly is foretold from one side at least; a wrong pose from none.
    frames (K,) ascending; c2w (K, 4, 4); depth: the scene's median depth, in the poses' unit.
    """
    keep = np.ones(len(frames), bool)
    for _ in range(ROUNDS):
        known = np.flatnonzero(keep)
        if len(known) < 2 * AROUND:
            break
        shift, turn = _unforeseen(frames[known], c2w[known])
        bad = _sticks_out(shift, LEAST_SHIFT * depth) | _sticks_out(turn, LEAST_TURN)
        if not bad.any():
            break
        keep[known[bad]] = False
    return keep


def _unforeseen(frames: np.ndarray, c2w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each pose (K,) lies from the nearest of three linear guesses, in position and in radians; ends 0."""
    shift, turn = np.full(len(frames), np.inf), np.full(len(frames), np.inf)
    at = np.arange(2, len(frames) - 2)
    for a, b in ((-2, -1), (-1, 1), (1, 2)):
        share = (frames[at] - frames[at + a]) / (frames[at + b] - frames[at + a])
        guess = between(c2w[at + a], c2w[at + b], share)
        off = np.linalg.norm(c2w[at, :3, 3] - guess[:, :3, 3], axis=1)
        angle = np.linalg.norm(log(guess[:, :3, :3].transpose(0, 2, 1) @ c2w[at, :3, :3]), axis=1)
        shift[at], turn[at] = np.minimum(shift[at], off), np.minimum(turn[at], angle)
    return np.where(np.isinf(shift), 0, shift), np.where(np.isinf(turn), 0, turn)


def _sticks_out(off: np.ndarray, least: float) -> np.ndarray:
    """Where `off` (K,) is far above what is usual around it."""
    padded = np.pad(off, AROUND, constant_values=np.nan)
    usual = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1), axis=1)
    return (off > least) & (off > OUTLIER * usual)


def pieces(frames: np.ndarray, max_gap: int) -> list[np.ndarray]:
    """Known frames (K,) cut wherever more than `max_gap` frames between two of them have no pose."""
    return np.split(frames, np.flatnonzero(np.diff(frames) > max_gap + 1) + 1)


def fill(frames: np.ndarray, c2w: np.ndarray) -> np.ndarray:
    """A pose for every frame from the first to the last known one: (K,), (K, 4, 4) -> (T, 4, 4)."""
    asked = np.arange(frames[0], frames[-1] + 1)
    after = np.searchsorted(frames, asked).clip(1, len(frames) - 1)
    share = (asked - frames[after - 1]) / (frames[after] - frames[after - 1])
    return between(c2w[after - 1], c2w[after], share)


def smooth(c2w: np.ndarray, half: int) -> np.ndarray:
    """Each pose from a parabola through those up to `half` frames away (Savitzky and Golay 1964): (T, 4, 4) -> same.

    Rotations are fitted in the tangent at each frame. At the ends the window stays as long and the frame lies aside.
    half: 0 changes nothing.
    """
    length = 2 * half + 1
    if half == 0 or len(c2w) < max(length, 4):
        return c2w
    result = c2w.copy()
    for i in range(len(c2w)):
        first = min(max(i - half, 0), len(c2w) - length)
        window = c2w[first : first + length]
        offset = np.arange(first, first + length) - i
        weight = np.linalg.pinv(np.stack([offset**0, offset, offset**2], 1).astype(float))[0]
        own = c2w[i, :3, :3]
        result[i, :3, 3] = weight @ window[:, :3, 3]
        result[i, :3, :3] = own @ exp(weight @ log(own.T @ window[:, :3, :3]))
    return result
