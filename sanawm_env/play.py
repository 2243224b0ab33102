"""Fly through a generated world by keyboard, in a window (extra `window`).

w s: ahead and back; a d: turn left and right; j l: move left and right; i k: look up and down; r: another scene;
escape: end. A tap counts for one step. Keys coast after release, as in action strings v2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

import sanawm_env  # noqa: F401  (registers the environments)
from sanawm_env.window import SCREENLESS
from world_model.errors import BackendError, InputError
from world_model.train.data.source import optional_module

KEYS = "wsljdaik"  # in the order of control="keys"


@dataclass(frozen=True, kw_only=True)
class Pressed:
    """What the keyboard says before a step. held: of KEYS."""

    held: frozenset[str] = frozenset()
    again: bool = False
    ends: bool = False


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """Options of `sanawm play`. model: a shipped name or a folder; scene: index or name in the bank, else drawn."""

    env: str = "SanaWM-v0"
    model: str = "nano"
    scene: int | str | None = None
    seed: int = 0
    max_steps: int = 240

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise InputError(f"max_steps: expected at least 1, got {self.max_steps}")


def play(env: gym.Env, read: Callable[[], Pressed], seed: int, scene: int | str | None) -> list[tuple[float, bool]]:
    """Act as `read` says until it ends; returns the return of every episode, and whether it succeeded.

    An episode that ends is followed by the next. env: of control "keys".
    """
    options = {} if scene is None else {"scene": scene}
    env.reset(seed=seed, options=options)
    episodes, total, success, steps = [], 0.0, False, 0
    while not (pressed := read()).ends:
        over = pressed.again
        if not over:
            action = np.array([key in pressed.held for key in KEYS], np.int8)
            _, reward, terminated, truncated, info = env.step(action)
            total, success, steps = total + float(reward), bool(info["is_success"]), steps + 1
            over = terminated or truncated
        if over:
            episodes.append((total, success))
            total, success, steps = 0.0, False, 0
            env.reset(options={} if pressed.again else options)
    return [*episodes, (total, success)] if steps else episodes


def read_keyboard() -> Pressed:
    """The keys of pygame's window that are down or went down since the last step, and what else was pressed."""
    pygame = optional_module("pygame", "window")
    events = pygame.event.get()
    pressed = {event.key for event in events if event.type == pygame.KEYDOWN}
    down = pygame.key.get_pressed()
    return Pressed(
        held=frozenset(key for key in KEYS if down[ord(key)] or ord(key) in pressed),
        again=pygame.K_r in pressed,
        ends=pygame.K_ESCAPE in pressed or any(event.type == pygame.QUIT for event in events),
    )


def require_screen() -> None:
    """Raises BackendError where pygame is missing, or finds no screen: it would draw for nobody and hear no key."""
    pygame = optional_module("pygame", "window")
    pygame.display.init()
    if (driver := pygame.display.get_driver()) in SCREENLESS:
        raise BackendError(f"expected a screen (on Linux the variable DISPLAY), got SDL's driver {driver!r}")


def main() -> None:
    import tyro

    config = tyro.cli(PlayConfig, prog="sanawm play", description=__doc__)
    require_screen()  # before the weights are read
    given = {"control": "keys", "max_episode_steps": config.max_steps, "render_mode": "human"}
    env = gym.make(config.env, model=config.model, **given)
    for i, (total, success) in enumerate(play(env, read_keyboard, config.seed, config.scene)):
        print(f"episode {i}: return {total:+.2f}, {'reached' if success else 'not reached'}")
    env.close()
