"""A video as frames at the wanted rate: when each is shown, and its picture, decoded when it is needed.

The times are read without decoding. The rotation that a phone stores is applied, so that up is up. Needs av.

Legend: T frames at the wanted rate, H W pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from world_model.errors import EpisodeError
from world_model.train.data.recording import pick_frames


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Where the frames of a video lie in its file."""

    path: Path
    fps: float
    stamps: np.ndarray  # (T,) in the file's own units of time, ascending; a few twice where the footage is slower

    def pictures(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Frames uint8 (H, W, 3) RGB of ascending indices. Raises EpisodeError where the file is damaged."""
        return self._read(indices, lambda picture: picture.to_ndarray(format="rgb24"))

    def small(self, indices: np.ndarray, longest: int) -> Iterator[np.ndarray]:
        """The same in grey, uint8 (H, W), the longer side at most `longest` pixels."""

        def shrink(picture: Any) -> np.ndarray:
            factor = min(1.0, longest / max(picture.width, picture.height))
            width, height = round(picture.width * factor), round(picture.height * factor)
            return picture.to_ndarray(width=width, height=height, format="gray")

        return self._read(indices, shrink)

    def _read(self, indices: np.ndarray, convert: Callable[[Any], np.ndarray]) -> Iterator[np.ndarray]:
        import av

        wanted = self.stamps[indices]
        place = 0
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                container.seek(int(wanted[0]), stream=stream)
                for picture in container.decode(stream):
                    if place == len(wanted) or (picture.pts is not None and picture.pts > wanted[place]):
                        break
                    if picture.pts == wanted[place]:
                        image = upright(convert(picture), picture.rotation)
                        while place < len(wanted) and wanted[place] == picture.pts:
                            yield image
                            place += 1
        except av.FFmpegError as error:
            raise EpisodeError(f"{self.path}: expected a video, got {error}") from error
        if place < len(wanted):
            raise EpisodeError(f"{self.path}: expected {len(wanted)} pictures that decode, got {place}: it is damaged")


def upright(image: np.ndarray, degrees: int) -> np.ndarray:
    """A picture turned counter-clockwise by what its file says, in quarters. Raises EpisodeError for other angles."""
    if degrees % 90:
        raise EpisodeError(f"expected a rotation in steps of 90 degrees, got {degrees}")
    return np.ascontiguousarray(np.rot90(image, degrees // 90))


def open_footage(path: Path, fps: float) -> Footage:
    """The frames nearest to every 1/`fps` seconds. Raises EpisodeError, naming the file, for anything but a video of
    at least 0.9 `fps` frames a second without holes.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            unit = float(stream.time_base)
            found = [p.dts if p.pts is None else p.pts for p in container.demux(stream) if p.size]
    except (av.FFmpegError, IndexError) as error:  # IndexError: no video stream
        raise EpisodeError(f"{path}: expected a video, got {error}") from error
    stamps = np.unique(np.array([stamp for stamp in found if stamp is not None], np.int64))
    try:
        chosen = pick_frames(stamps * unit, fps)
    except EpisodeError as error:
        raise EpisodeError(f"{path}: {error}") from error
    return Footage(path=path, fps=fps, stamps=stamps[chosen])
