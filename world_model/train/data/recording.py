"""From what a reader finds to an episode: the model's frame rate, the model's picture size, poses from the start.

A frame of the result is a frame of the footage, with the pose of that very moment: nothing is blended, so pictures
and poses agree exactly, and only the spacing in time is uneven by up to half a frame of the footage.

Legend: T frames of the footage, F frames of the episode, H W pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from world_model.errors import EpisodeError, InputError
from world_model.images import fit_image
from world_model.train.data.episode import Episode
from world_model.train.data.poses import relative_to_first

SLOWEST = 0.9  # of the wanted frame rate; slower footage would stand still too often


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Footage with a camera path, its pictures not decoded yet."""

    times: np.ndarray  # (T,) seconds, ascending
    c2w: np.ndarray  # (T, 4, 4) float64 camera-to-world, OpenCV axes, metres, in any fixed world
    intrinsics: np.ndarray  # (T, 4) or (4,) fx, fy, cx, cy in pixels, a pixel's centre at its index + 0.5
    pictures: Callable[[np.ndarray], Iterator[np.ndarray]]  # of ascending indices: uint8 (H, W, 3) RGB each
    caption: str
    meta: dict


def to_episode(recording: Recording, fps: float, size: tuple[int, int]) -> Episode:
    """At `fps`, every picture resized to cover `size` (height, width) and cropped at the centre, the lens with it.

    Raises EpisodeError for footage that is slower than `fps`, has holes, or does not make an episode.
    """
    chosen = pick_frames(recording.times, fps)
    needed, place = np.unique(chosen, return_inverse=True)
    lenses = np.broadcast_to(recording.intrinsics, (len(recording.times), 4))[needed]
    try:
        fitted = [
            fit_image(picture, lens, size) for picture, lens in zip(recording.pictures(needed), lenses, strict=True)
        ]
    except InputError as error:
        raise EpisodeError(str(error)) from error
    return Episode(
        frames=np.stack([fitted[i][0].numpy() for i in place]),
        c2w=relative_to_first(recording.c2w[chosen]),
        intrinsics=np.stack([fitted[i][1].numpy() for i in place]).astype(np.float32),
        caption=recording.caption,
        fps=fps,
        meta=recording.meta,
    )


def pick_frames(times: np.ndarray, fps: float) -> np.ndarray:
    """Indices (F,) of the frames nearest to 0, 1, 2... / fps seconds after the first, ascending, a few twice.

    times: (T,) seconds. Raises EpisodeError when they do not ascend, come at less than 0.9 `fps`, or leave a moment
    more than 1 / `fps` away from any picture.
    """
    if len(times) < 2 or not (np.diff(times) > 0).all():
        raise EpisodeError(
            f"expected at least 2 frames with ascending times, got {len(times)}, or times that turn back"
        )
    length = times[-1] - times[0]
    rate = (len(times) - 1) / length
    if rate < SLOWEST * fps:
        raise EpisodeError(f"expected footage of at least {SLOWEST * fps:g} frames a second, got {rate:.4g}")
    moments = times[0] + np.arange(int(length * fps + 1e-3) + 1) / fps
    after = np.searchsorted(times, moments).clip(1, len(times) - 1)
    chosen = after - (moments - times[after - 1] <= times[after] - moments)
    away = np.abs(times[chosen] - moments)
    if away.max() > 1 / fps:
        moment = moments[away.argmax()] - times[0]
        raise EpisodeError(
            f"expected a picture within {1 / fps:.3g} s of every moment, got none within {away.max():.3g} s "
            f"{moment:.3g} s after the first"
        )
    return chosen
