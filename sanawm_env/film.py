"""Films and pictures of flights, for people to look at: MP4 that every player shows, and PNG contact sheets.

Shapes: V views side by side, T frames.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from world_model.train.pictures import png

CRF = 18  # of libx264: no loss that an eye sees


def enlarge(frames: np.ndarray, factor: int) -> np.ndarray:
    """Frames (T, H, W, 3) uint8, `factor` times larger and smooth."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    pixels = F.interpolate(pixels, scale_factor=factor, mode="bicubic")
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def side_by_side(views: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """V views (T, H, W, 3) uint8 of equal size -> (T, H, V*W and gaps, 3), white between them."""
    white = np.full_like(views[0][:, :, :gap], 255)
    columns = [part for view in views for part in (white, view)][1:]
    return np.concatenate(columns, axis=2)


def contact_sheet(rows: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """Rows of frames, (T, H, W, 3) uint8 each -> one picture, white between the frames."""
    strips = [side_by_side([frame[None] for frame in row], gap)[0] for row in rows]
    white = np.full_like(strips[0][:gap], 255)
    return np.concatenate([part for strip in strips for part in (white, strip)][1:])


def write_picture(path: Path, picture: np.ndarray) -> None:
    """(H, W, 3) uint8 as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(picture))


def write_film(path: Path, frames: np.ndarray, fps: float) -> None:
    """Frames (T, H, W, 3) uint8 as H.264 in MP4, in the colour format (yuv420p) that browsers and phones decode.

    A last odd row or column is left out, which the format cannot hold.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(CRF)})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
