"""The window of render_mode="human": every frame of a step at its own pace. Needs pygame, which is no dependency."""

import logging
from importlib.util import find_spec

import numpy as np

from world_model.errors import BackendError

HEIGHT = 512  # pixels that a small frame is enlarged to, by a whole factor
SCREENLESS = ("dummy", "offscreen")  # what SDL draws with where it is told to, and where it finds no screen
logger = logging.getLogger(__name__)


def has_pygame() -> bool:
    """Whether a window can be asked for."""
    return find_spec("pygame") is not None


class Window:
    """A window that shows video; opened by the first frames."""

    def __init__(self) -> None:
        """Raises BackendError without pygame."""
        if not has_pygame():
            raise BackendError(
                "render_mode: 'human' expects the package pygame (pip install pygame), got an installation without it"
            )
        import pygame  # pyright: ignore[reportMissingImports]

        self._pygame = pygame
        self._screen = None
        self._clock = pygame.time.Clock()

    def show(self, frames: np.ndarray, fps: float) -> None:
        """Show frames (F, H, W, 3) uint8, `fps` a second."""
        pygame = self._pygame
        factor = max(1, HEIGHT // frames.shape[1])
        size = frames.shape[2] * factor, frames.shape[1] * factor
        if self._screen is None:
            pygame.display.init()
            if (driver := pygame.display.get_driver()) in SCREENLESS:
                logger.warning("render_mode 'human': no screen, nobody sees what is drawn (SDL's driver %s)", driver)
            pygame.display.set_caption("SANA-WM")
            self._screen = pygame.display.set_mode(size)
        for frame in frames:
            picture = pygame.surfarray.make_surface(frame.swapaxes(0, 1))  # pygame counts x first
            self._screen.blit(pygame.transform.scale(picture, size), (0, 0))
            pygame.event.pump()
            self._clock.tick(fps)
            pygame.display.flip()

    def close(self) -> None:
        """Close the window; a second call does nothing."""
        if self._screen is not None:
            self._pygame.display.quit()
            self._screen = None
