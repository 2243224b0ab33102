"""Long play there and back, on an untrained model and made-up rooms."""

import dataclasses

import pytest
import torch

from tests.world_model.box_room import episode, small_nano
from world_model.endurance import Endurance, Window, measure, there_and_back, to_markdown
from world_model.errors import InputError
from world_model.model import WorldModel

SIZE = 64


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return WorldModel.random(small_nano(SIZE))


def windows(gradient: float, frechet: float) -> Endurance:
    first = Window(until=10, psnr=20.0, gradient=0.9, change=2.0, frechet=1.0)
    settled = Window(until=20, psnr=18.0, gradient=0.5, change=2.0, frechet=4.0)
    last = Window(until=30, psnr=17.0, gradient=gradient, change=2.0, frechet=frechet)
    return Endurance((first, settled, last), ())


def test_a_path_is_gone_there_and_back() -> None:
    assert there_and_back(4, 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]


def test_every_ten_seconds_have_a_window(model: WorldModel) -> None:
    rooms = [
        episode(kind, twist, frames=17, size=SIZE) for kind, twist in (("yaw", [0, 0, 0, 0, 30, 0]), ("still", [0] * 6))
    ]
    steps = []
    result = measure(model, rooms, 130, progress=steps.append)
    assert [window.until for window in result.windows] == [10, 20, 30]
    assert sum(steps) == 120  # latents of three windows; the ten that are left over are not played
    assert [tuple(frames.shape) for frames in result.frames] == [(4, SIZE, SIZE, 3)] * 2
    assert "| 30 |" in to_markdown(result)


def test_figures_are_those_of_the_truth_when_truth_is_played(
    model: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = episode("yaw", [0, 0, 0, 0, 30, 0], frames=17, size=SIZE)
    played = [0]

    def step(state, poses, donate=False):
        played[0] += poses.shape[1]
        index = there_and_back(17, played[0] + 1)[-poses.shape[1] :]
        return state, torch.from_numpy(room.frames)[index][None]

    monkeypatch.setattr(model, "step", step)
    result = measure(model, [room], 120)
    for window in result.windows:
        assert window.psnr == pytest.approx(60)
        assert window.gradient == pytest.approx(1)
        assert window.frechet == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("gradient", "frechet", "collapses"), [(0.45, 4.5, False), (0.39, 4.0, True), (0.5, 4.9, True), (0.61, 4.0, True)]
)
def test_a_fifth_either_way_is_a_collapse(gradient: float, frechet: float, collapses: bool) -> None:
    result = windows(gradient, frechet)
    assert result.collapses is collapses
    assert to_markdown(result).startswith("- FAIL" if collapses else "- pass")


def test_fewer_than_three_windows_are_refused(model: WorldModel) -> None:
    with pytest.raises(InputError, match="expected at least 120, three windows of 10 s, got 119"):
        measure(model, [episode("still", [0] * 6, frames=17, size=SIZE)], 119)


def test_a_rate_that_cuts_a_step_is_refused(model: WorldModel) -> None:
    odd = dataclasses.replace(episode("still", [0] * 6, frames=17, size=SIZE), fps=15.0)
    with pytest.raises(InputError, match="whole steps of 4, got 150 frames"):
        measure(model, [odd], 240)
