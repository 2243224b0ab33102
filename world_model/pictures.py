"""Frames as pictures for people: PNG with no imaging library (bare machines have none), views and contact sheets.

Shapes: V views side by side, T frames.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from world_model.errors import InputError


def png(picture: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) RGB as PNG. Raises InputError on any other array."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise InputError(f"picture: expected uint8 (H, W, 3), got {picture.dtype} {picture.shape}")
    height, width, _ = picture.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], 1)  # filter 0 each
    body = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def side_by_side(views: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """V views (..., H, W, 3) uint8 of equal size -> (..., H, V*W and gaps, 3), white between them."""
    white = np.full_like(views[0][..., :gap, :], 255)
    return np.concatenate([part for view in views for part in (white, view)][1:], axis=-2)


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Rows of T frames (H, W, 3) uint8 -> one picture, white between the frames."""
    strips = [side_by_side(row, gap) for row in rows]
    white = np.full_like(strips[0][:gap], 255)
    return np.concatenate([part for strip in strips for part in (white, strip)][1:])


def sheet(rows: list[Tensor]) -> np.ndarray:
    """Rows of frames, each (F, 3, H, W) in [-1, 1] -> one uint8 picture (len(rows)*H, F*W, 3)."""
    strips = [row.permute(2, 0, 3, 1).flatten(1, 2) for row in rows]  # (H, F*W, 3)
    return np.concatenate([to_uint8(strip) for strip in strips])


def to_uint8(frames: Tensor) -> np.ndarray:
    """Values in [-1, 1], clamped and rounded."""
    return ((frames.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
