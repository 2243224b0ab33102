"""What a world model has to beat: engines that know the start picture only, and generate nothing.

"repeat" shows the start picture again and again, wherever the camera goes. "warp" turns it as the camera turns, which
is exact for what the start frame saw, and does not move. Shapes: N worlds, F frames of a step, H, W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sanawm_env.engine import Chunk, Pixels
from sanawm_env.starts import Start, choose_start
from sanawm_env.worlds import ArrayWorlds
from world_model.config import WorldConfig
from world_model.errors import require_one_of
from world_model.images import fit_image
from world_model.reprojection import warp_start

KINDS = ("repeat", "warp")


class StartPictureEngine:
    """Shows the start picture, repeated or warped. See `sanawm_env.engine.Engine`.

    config: whose size of frames, rate and number a step it copies. Raises InputError for an unknown kind.
    """

    signals = ()
    has_latents = False

    def __init__(self, kind: str, config: WorldConfig) -> None:
        require_one_of("kind", kind, *KINDS)
        self.kind, self.config = kind, config
        self.fingerprint = f"start-picture-{kind}"

    def choose(self, options: Mapping[str, Any] | None, bank: Sequence[Start], rng: np.random.Generator) -> Start:
        return choose_start(options, bank, rng)

    def begin(self, starts: Sequence[Start], seeds: Sequence[int], pixels: Pixels) -> tuple[ArrayWorlds, Chunk]:
        size = self.config.tokenizer.height, self.config.tokenizer.width
        fitted = [fit_image(start.image, start.intrinsics, size) for start in starts]
        arrays = {
            "seed": np.array(seeds, np.int64),
            "picture": np.stack([picture.numpy() for picture, _ in fitted]),  # (N, H, W, 3)
            "lens": np.stack([lens.numpy() for _, lens in fitted]).astype(np.float32),  # (N, 4)
        }
        worlds = ArrayWorlds(model=self.fingerprint, arrays=arrays)
        return worlds, self._chunk(worlds, np.tile(np.eye(4), (len(starts), 1, 1, 1)), pixels)

    def intrinsics(self, worlds: ArrayWorlds) -> np.ndarray:
        return worlds.arrays["lens"].copy()

    def advance(self, worlds: ArrayWorlds, paths: np.ndarray, pixels: Pixels) -> tuple[ArrayWorlds, Chunk]:
        return worlds, self._chunk(worlds, paths, pixels)

    def close(self) -> None:
        """Nothing to let go of."""

    def _chunk(self, worlds: ArrayWorlds, paths: np.ndarray, pixels: Pixels) -> Chunk:
        frames = None
        if pixels != "none":
            shown = paths[:, -1:] if pixels == "last" else paths
            each = zip(worlds.arrays["picture"], worlds.arrays["lens"], shown, strict=True)
            frames = np.stack([self._show(*one) for one in each])
        return Chunk(poses=paths, frames=frames, latents=None, signals=({},) * len(worlds))

    def _show(self, picture: np.ndarray, lens: np.ndarray, path: np.ndarray) -> np.ndarray:
        """What cameras of a path (F, 4, 4) see: (F, H, W, 3) uint8."""
        if self.kind == "repeat":
            return np.tile(picture, (len(path), 1, 1, 1))
        poses = torch.from_numpy(np.concatenate([np.eye(4)[None], path])).float()  # the first is the start's
        lenses = torch.from_numpy(lens).expand(len(poses), -1)
        warped = warp_start(torch.from_numpy(picture), poses, lenses)[1:]
        return warped.round().clamp(0, 255).byte().numpy()
