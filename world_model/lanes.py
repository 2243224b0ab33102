"""Many worlds on several CPU cores: a forward of some worlds on each core, instead of one forward spread over all.

OpenMP's threads wait for each other after every operation, and a small model's step has thousands: whenever another
program takes a core for a moment, all of them stand still. Lanes meet once, at the end.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from threading import Barrier
from typing import TypeVar

import torch

from world_model.tree import map_tensors

T = TypeVar("T")


def lane_count(worlds: int, device: torch.device) -> int:
    """As many lanes as torch has CPU threads, and at most one a world. Other devices take all worlds at once."""
    return min(worlds, torch.get_num_threads()) if device.type == "cpu" else 1


def in_lanes(work: Callable[[slice], T], worlds: int, lanes: int) -> T:
    """`work` of all worlds: tensors and nested values of them, whose first axis is worlds.

    One lane runs here, with all of torch's threads. Of several, each takes neighbouring worlds to a thread in which
    torch stays alone, without gradients; their results are put together.
    """
    if lanes == 1:
        return work(slice(0, worlds))
    ends = [worlds * lane // lanes for lane in range(lanes + 1)]
    threads = _threads(lanes, os.getpid())

    def run(part: slice) -> T:
        with torch.no_grad():  # a thread has its own switch
            return work(part)

    parts = list(threads.map(run, [slice(*ends) for ends in pairwise(ends)]))
    # there too: copies are large enough for OpenMP to take all cores
    return threads.submit(map_tensors, lambda *tensors: torch.cat(tensors), *parts).result()


@lru_cache(maxsize=1)
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """The lanes of a process; its number is asked for since threads do not survive a fork."""
    before = torch.get_num_threads()
    everyone = Barrier(count)

    def settle() -> None:
        everyone.wait()  # or one thread would do all the settling
        torch.get_num_threads()  # torch sets a thread up when it first asks, which would undo the next line
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(count, "lane")
    for lane in [pool.submit(settle) for _ in range(count)]:
        lane.result()
    torch.set_num_threads(before)  # what a lane sets for itself, torch takes as the default of all threads
    return pool
