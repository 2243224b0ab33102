"""Worlds of arrays: slots, batches, forks, files, every refusal."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sanawm_env.worlds import ArrayWorlds, load_worlds
from world_model.errors import InputError, StateError


def worlds(count: int = 3, model: str = "some-engine") -> ArrayWorlds:
    pose = np.arange(count * 16, dtype=np.float64).reshape(count, 4, 4) / 7
    return ArrayWorlds(model=model, arrays={"seed": np.arange(count, dtype=np.int64) * 2**40, "pose": pose})


def test_slots_and_batches() -> None:
    three = worlds()
    chosen = three[[2, 0]]
    np.testing.assert_array_equal(chosen.arrays["pose"], three.arrays["pose"][[2, 0]])
    assert not np.shares_memory(chosen.arrays["pose"], three.arrays["pose"])
    back = ArrayWorlds.cat([three[0], three[1:]])
    for name, array in three.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
    with pytest.raises(IndexError):
        three[3]


def test_forks() -> None:
    one = worlds()[1]
    np.testing.assert_array_equal(one.fork(2).arrays["seed"], [2**40] * 2)
    forked = one.fork(2, [7, 8])
    assert forked.arrays["seed"].tolist() == [7, 8]
    np.testing.assert_array_equal(forked.arrays["pose"][1], one.arrays["pose"][0])
    with pytest.raises(StateError, match="fork: expected a single world, got 3"):
        worlds().fork(2)
    with pytest.raises(InputError, match="seeds: expected 2, one a world, got 1"):
        one.fork(2, [7])


def test_files(tmp_path: Path) -> None:
    three, path = worlds(), tmp_path / "worlds.safetensors"
    three.save(path)
    back = load_worlds(path)
    assert isinstance(back, ArrayWorlds)
    assert back.model == "some-engine"
    for name, array in three.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
        assert back.arrays[name].dtype == array.dtype
    save_file(dict(three.arrays), path, {"format": "sanawm-array-worlds", "version": "9", "model": "x"})
    with pytest.raises(StateError, match=r"expected format 'sanawm-array-worlds' version 1, got .* version 9"):
        load_worlds(path)
    save_file({"pose": np.zeros(3)}, path, {"format": "sanawm-array-worlds", "version": "1", "model": "x"})
    with pytest.raises(StateError, match="expected arrays of one length, 'seed' among them"):
        load_worlds(path)
    path.write_bytes(b"none")
    with pytest.raises(StateError, match="expected a world state in a safetensors file, got"):
        load_worlds(path)


def test_what_does_not_go_together() -> None:
    with pytest.raises(StateError, match="expected worlds of some-engine, got other"):
        ArrayWorlds.cat([worlds(), worlds(model="other")])
    with pytest.raises(StateError, match="expected at least one batch"):
        ArrayWorlds.cat([])
