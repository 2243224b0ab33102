"""Films and pictures of flights, for people to look at: MP4 that every player shows, and PNG. T frames."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from world_model.pictures import png
from world_model.train.data.video import encode_video

CRF = 18  # of libx264: no loss that an eye sees


def enlarge(frames: np.ndarray, factor: int) -> np.ndarray:
    """Frames (T, H, W, 3) uint8, `factor` times larger and smooth."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    pixels = F.interpolate(pixels, scale_factor=factor, mode="bicubic")
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """(H, W, 3) uint8 as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(picture))


def write_film(path: Path, frames: np.ndarray, fps: float) -> None:
    """Frames (T, H, W, 3) uint8 as H.264 in MP4, in the colour format (yuv420p) that browsers and phones decode.

    A last odd row or column is left out, which the format cannot hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    encode_video(path, frames[:, :height, :width], fps, crf=CRF, colour="yuv420p")
