"""render_mode="human", with a stand-in for pygame: what it is asked to draw, and what is said without it."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sanawm_env import window
from sanawm_env.env import SanaWMEnv
from sanawm_env.window import Window
from world_model.errors import BackendError


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the stand-in was asked for, in order."""
    calls: list[Any] = []
    screen = SimpleNamespace(blit=lambda picture, place: calls.append(("blit", picture, place)))
    fake = SimpleNamespace(
        display=SimpleNamespace(
            init=lambda: None,
            get_driver=lambda: "x11",
            set_caption=lambda text: None,
            set_mode=lambda size: calls.append(("open", size)) or screen,
            flip=lambda: None,
            quit=lambda: calls.append(("quit",)),
        ),
        time=SimpleNamespace(Clock=lambda: SimpleNamespace(tick=lambda fps: calls.append(("tick", fps)))),
        surfarray=SimpleNamespace(make_surface=lambda array: array.copy()),
        transform=SimpleNamespace(scale=lambda picture, size: picture),
        event=SimpleNamespace(pump=lambda: None),
    )
    monkeypatch.setitem(sys.modules, "pygame", fake)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(window, "has_pygame", lambda: True)
    return calls


def test_every_frame_of_a_step_is_shown_at_its_own_pace(model_folder: Path, shown: list[Any]) -> None:
    env = SanaWMEnv(model=model_folder, render_mode="human")
    start, _ = env.reset(seed=0)
    assert [call[0] for call in shown] == ["open", "blit", "tick"]
    assert shown[0][1] == (512, 512)
    np.testing.assert_array_equal(shown[1][1], start.swapaxes(0, 1))
    del shown[:]
    observation, *_ = env.step(np.zeros(6, np.float32))
    assert [call[0] for call in shown] == ["blit", "tick"] * 4
    assert {call[1] for call in shown if call[0] == "tick"} == {16.0}
    np.testing.assert_array_equal(shown[-2][1], observation.swapaxes(0, 1))
    assert env.render() is None
    env.close()
    env.close()
    assert shown.count(("quit",)) == 1


def test_a_wide_frame_keeps_its_shape(shown: list[Any]) -> None:
    Window().show(np.zeros((1, 704, 1280, 3), np.uint8), 16.0)
    assert shown[0] == ("open", (1280, 704))


def test_a_missing_screen_is_told(shown: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    sys.modules["pygame"].display.get_driver = lambda: "offscreen"
    drawn = Window()
    for _ in range(2):
        drawn.show(np.zeros((1, 64, 64, 3), np.uint8), 16.0)
    assert [record.message for record in caplog.records] == [
        "render_mode 'human': no screen, nobody sees what is drawn (SDL's driver offscreen)"
    ]


def test_without_pygame_the_package_is_named(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "has_pygame", lambda: False)
    with pytest.raises(BackendError, match=r"'human' expects the package pygame \(pip install pygame\), got"):
        SanaWMEnv(model=model_folder, render_mode="human")
