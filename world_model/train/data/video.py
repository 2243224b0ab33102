"""H.264 in MP4: written with av, read with av or with opencv, the same pixels from both to within rounding.

av and cv2 are imported where they are used: a machine that trains may have only one of them.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from world_model.errors import EpisodeError


def encode_video(path: Path, frames: np.ndarray, fps: float, *, crf: int, colour: str = "yuv444p") -> None:
    """Write frames uint8 (T, H, W, 3) RGB. Colour in full resolution unless told: goals are small and saturated."""
    import av

    rate = Fraction(fps).limit_denominator(1000)
    with av.open(str(path), "w") as container:
        # One thread, so that the bytes do not depend on the machine's cores.
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "fast", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = colour
        for image in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def decode_video(path: Path, *, decoder: str) -> np.ndarray:
    """All frames uint8 (T, H, W, 3) RGB with decoder "av" or "opencv"; EpisodeError where the video is broken."""
    return {"av": _decode_av, "opencv": _decode_opencv}[decoder](Path(path))


def decode_frames(path: Path, start: float, fps: float, indices: Iterable[int]) -> Iterator[np.ndarray]:
    """Pictures uint8 (H, W, 3) RGB at `start` + i / `fps` seconds of a video, for ascending i; with av.

    Begins at the key frame before `start`, so a piece of a long file costs little more than itself. Raises
    EpisodeError for a broken video, and when there is no picture within half a frame of such a moment.
    """
    import av

    wanted = iter(indices)
    index = next(wanted, None)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            container.seek(max(0, int(start / stream.time_base)), stream=stream)
            for picture in container.decode(stream) if index is not None else ():
                place = round((picture.time - start) * fps)
                if place > index:
                    break
                if place == index:
                    yield picture.to_ndarray(format="rgb24")
                    index = next(wanted, None)
                    if index is None:
                        return
    except (av.FFmpegError, IndexError) as error:  # IndexError: no video stream
        raise EpisodeError(f"{path}: expected a video, got {error}") from error
    if index is not None:
        raise EpisodeError(f"{path}: expected a picture at {start + index / fps:.3f} s, got none")


def _decode_av(path: Path) -> np.ndarray:
    import av

    try:
        with av.open(str(path)) as container:
            frames = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:  # IndexError: no video stream
        raise EpisodeError(f"{path}: expected an H.264 video, got {error}") from error
    return _stack(path, frames)


def _decode_opencv(path: Path) -> np.ndarray:
    import cv2

    capture = cv2.VideoCapture(str(path))
    frames = []
    try:
        while True:
            there, image = capture.read()
            if not there:
                break
            frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    return _stack(path, frames)


def _stack(path: Path, frames: list[np.ndarray]) -> np.ndarray:
    if not frames:
        raise EpisodeError(f"{path}: expected a video with frames, got none that decodes")
    return np.stack(frames)
