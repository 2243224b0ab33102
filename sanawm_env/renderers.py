"""Renderers of the scenes that are looked at now. Each is a PyBullet world of some 50 MB that takes a fifth of a second
to build, so the last ones are kept, and the oldest are freed.
"""

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sanawm_env.scenes import make_scene

if TYPE_CHECKING:  # importing it imports PyBullet, which is an extra and prints
    from sanawm_env.render import SceneRenderer

KEPT = 12  # scenes, if no more are flown through at once


class Renderers:
    """Renderers by the seeds of their scenes. Copies and pickles of it begin empty: a PyBullet world cannot travel."""

    def __init__(self) -> None:
        self._open: dict[int, SceneRenderer] = {}  # in the order of their last use
        weakref.finalize(self, close_all, self._open)

    def of(self, seed: int) -> "SceneRenderer":
        """The renderer of a scene, built now unless it is kept. Raises BackendError without PyBullet."""
        from sanawm_env.render import SceneRenderer

        renderer = self._open.pop(seed, None) or SceneRenderer(make_scene(seed))
        self._open[seed] = renderer
        return renderer

    def trim(self, needed: Iterable[int]) -> None:
        """Free those that have not been used for long, but for those of `needed` scenes."""
        needed = set(needed)
        for seed in [seed for seed in self._open if seed not in needed][: max(0, len(self._open) - KEPT)]:
            self._open.pop(seed).close()

    def close(self) -> None:
        """Free all of them; what is asked for later is built again."""
        close_all(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()


def close_all(renderers: "dict[int, SceneRenderer]") -> None:
    while renderers:
        renderers.popitem()[1].close()
