"""Lanes: each core its own worlds, and every world what it is in one forward."""

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from world_model.lanes import in_lanes, lane_count
from world_model.state import WorldState

CPU = torch.device("cpu")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_a_lane_a_core_and_at_most_one_a_world() -> None:
    assert [lane_count(worlds, CPU) for worlds in (1, 2, 3, 8)] == [1, 2, 3, 3]
    assert lane_count(8, torch.device("meta")) == 1


@pytest.mark.usefixtures("three_threads")
def test_every_world_is_in_one_lane_and_results_come_in_order() -> None:
    together, modes = threading.Barrier(3), []

    def work(worlds: slice) -> tuple[torch.Tensor, torch.Tensor]:
        together.wait(10)  # fails unless all lanes run at once
        modes.append((torch.get_num_threads(), torch.is_grad_enabled()))
        return torch.arange(8)[worlds], torch.eye(8)[worlds]

    numbers, rows = in_lanes(work, 8, 3)
    assert numbers.tolist() == list(range(8))
    assert torch.equal(rows, torch.eye(8))
    assert modes == [(1, False)] * 3
    assert torch.get_num_threads() == 3
    assert in_lanes(lambda worlds: torch.tensor([worlds.stop, torch.get_num_threads()]), 8, 1).tolist() == [8, 3]


@pytest.mark.usefixtures("three_threads")
def test_what_fails_in_a_lane_fails_here() -> None:
    with pytest.raises(ZeroDivisionError):
        in_lanes(lambda worlds: torch.tensor([1 // worlds.start]), 3, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.usefixtures("three_threads")
def test_a_forked_process_makes_lanes_of_its_own() -> None:
    in_lanes(lambda worlds: torch.arange(2)[worlds], 2, 2)
    child = os.fork()
    if child == 0:
        os._exit(0 if in_lanes(lambda worlds: torch.arange(2)[worlds], 2, 2).tolist() == [0, 1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_worlds_do_not_depend_on_lanes(play, assert_same) -> None:
    """Five worlds, out of step: latents to 1e-5 relative, pixels to 2, and the same again bit for bit."""
    steps = [0, 1, 2, 0, 3]
    batch = WorldState.cat([play.run([i], n) for i, n in enumerate(steps)])
    poses = torch.cat([play.poses([i], n) for i, n in enumerate(steps)])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        _, expected = play.model.step_latent(batch, poses)
        _, pixels = play.model.step(batch, poses)
        torch.set_num_threads(3)
        after, latents = play.model.step_latent(batch, poses)
        states, frames = zip(*(play.model.step(batch, poses) for _ in range(2)), strict=True)
    finally:
        torch.set_num_threads(before)
    assert (latents.values - expected.values).abs().max() <= 1e-5 * expected.values.abs().max()
    assert latents.index.tolist() == expected.index.tolist()
    assert (frames[0].int() - pixels).abs().max() <= 2
    assert torch.equal(*frames)
    assert_same(*states)
    assert after.index.tolist() == states[0].index.tolist()
