"""Play by keyboard, with keys from a list and, where pygame is, with its own events in no window."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import sanawm_env  # noqa: F401  (registers the environments)
from sanawm_env.play import KEYS, Pressed, main, play, read_keyboard
from world_model.errors import BackendError


def make(model_folder: Path, steps: int = 3) -> gym.Env:
    return gym.make("SanaWM-v0", model=str(model_folder), control="keys", max_episode_steps=steps)


def test_keys_fly_until_the_end(model_folder: Path) -> None:
    env = make(model_folder)
    moves = [Pressed(held=frozenset("w"))] * 4 + [Pressed(again=True), Pressed(held=frozenset("s")), Pressed(ends=True)]
    episodes = play(env, iter(moves).__next__, seed=0, scene=1)
    assert len(episodes) == 3  # of three steps, of one that was broken off, of one that was left
    assert episodes[0][0] > episodes[1][0] > 0 > episodes[2][0]


@pytest.mark.parametrize(("key", "axis", "sign"), [("w", 2, 1), ("s", 2, -1), ("l", 0, 1), ("j", 0, -1)])
def test_a_key_moves_where_it_says(model_folder: Path, key: str, axis: int, sign: int) -> None:
    env = make(model_folder)
    play(env, iter([Pressed(held=frozenset(key)), Pressed(ends=True)]).__next__, seed=0, scene=0)
    shift = env.unwrapped.get_state().episodes[0].pose[:3, 3]
    assert np.argmax(np.abs(shift)) == axis
    assert sign * shift[axis] > 0.05


@pytest.fixture
def pygame(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The real one, with a window that is on no screen."""
    module = pytest.importorskip("pygame", reason="extra window")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    module.display.init()
    module.display.set_mode((8, 8))
    yield module
    module.display.quit()


def test_pygames_keyboard(pygame: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_keyboard() == Pressed()
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_r))
    assert read_keyboard() == Pressed(again=True)
    down = {ord(key): key in "wd" for key in KEYS}
    monkeypatch.setattr(pygame.key, "get_pressed", lambda: down)
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE))
    assert read_keyboard() == Pressed(held=frozenset("wd"), ends=True)


def test_a_tap_between_two_steps_counts_for_one(pygame: Any) -> None:
    for kind in (pygame.KEYDOWN, pygame.KEYUP):
        pygame.event.post(pygame.event.Event(kind, key=pygame.K_w))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_LEFT))  # means nothing
    assert read_keyboard() == Pressed(held=frozenset("w"))
    assert read_keyboard() == Pressed()


def test_play_wants_a_screen(pygame: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["play"])
    with pytest.raises(BackendError, match=r"expected a screen .*, got SDL's driver 'dummy'"):
        main()
