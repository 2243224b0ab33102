"""States as values: taken apart, put together, saved, refused; and the window that softmax blocks see."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from world_model.attention import DeltaCache, SoftmaxCache
from world_model.config import WorldConfig
from world_model.errors import InputError, StateError
from world_model.memory import read_memory, write_memory
from world_model.presets import nano, tiny_sana
from world_model.state import WorldState
from world_model.transformer import BlockCache
from world_model.tree import build, map_tensors, named_tensors


@pytest.fixture(scope="module")
def ragged(tiny) -> WorldState:
    """Four worlds after 0, 1, 4 and 2 steps."""
    return WorldState.cat([tiny.run([i], steps) for i, steps in enumerate((0, 1, 4, 2))])


# ---- taken apart, put together ----------------------------------------------------------------------------


def test_a_chosen_world_owns_its_storage(ragged: WorldState) -> None:
    whole = {t.untyped_storage().data_ptr() for t in named_tensors(ragged).values()}
    for chosen in (ragged[1], ragged[1:3], ragged[[0, 3]], ragged[:]):
        tensors = named_tensors(chosen)
        assert not {t.untyped_storage().data_ptr() for t in tensors.values() if t.numel()} & whole
        assert all(t.is_contiguous() for t in tensors.values())
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors.values())


def test_worlds_are_chosen_as_from_a_list(ragged: WorldState) -> None:
    index = ragged.index.tolist()
    assert index == [0, 4, 13, 7]
    assert ragged[-1].index.tolist() == index[-1:]
    assert ragged[[2, 0, 2]].index.tolist() == [13, 0, 13]
    assert ragged[1:].index.tolist() == index[1:]
    assert [world.index.item() for world in ragged] == index
    assert len(ragged) == 4
    for missing in (4, -5, [0, 9]):
        with pytest.raises(IndexError):
            ragged[missing]


def test_a_world_keeps_only_the_chunks_that_it_has(ragged: WorldState) -> None:
    assert [len(ragged[i].window) for i in range(4)] == [0, 1, 2, 2]
    assert len(ragged.window) == 2
    assert [entry.there.tolist() for entry in ragged.window] == [[False, True, True, True], [False, False, True, True]]


def test_apart_and_together_is_the_same(ragged: WorldState, assert_same: Callable) -> None:
    assert_same(WorldState.cat([ragged[i] for i in range(4)]), ragged)
    assert_same(WorldState.cat([ragged[:2], ragged[2:]]), ragged)
    assert_same(WorldState.cat([ragged]), ragged)


@pytest.mark.parametrize("recent", [0, 1, 2])
def test_windows_of_any_length_align(recent: int) -> None:
    # worlds after 0..4 chunks: the sink stays first, recent chunks end with the newest
    config = dataclasses.replace(nano(), recent=recent)
    worlds = []
    for chunks in range(5):
        world = empty_world(config)
        for number in range(chunks):
            world = write_memory(world, marked(config, 10 * chunks + number), config)
        worlds.append(world)
    both = WorldState.cat(worlds)
    for chunks, world in enumerate(worlds):
        assert marks(both[chunks]) == marks(world)
        got = [marks_at(entry, chunks) for entry in both.window if entry.there[chunks]]
        assert got == marks(world)
        if chunks > 1 and recent:
            assert both.window[-1].there[chunks]


def test_nothing_cannot_be_put_together() -> None:
    with pytest.raises(StateError, match="expected at least one state, got none"):
        WorldState.cat([])


def test_only_one_world_forks(ragged: WorldState) -> None:
    with pytest.raises(StateError, match="expected a single world, got 4"):
        ragged.fork(2)
    with pytest.raises(InputError, match="seeds: expected 3, one a world, got 2"):
        ragged[0].fork(3, seeds=[1, 2])


# ---- the window -------------------------------------------------------------------------------------------


def empty_world(config: WorldConfig) -> WorldState:
    zeros, softmax = torch.zeros(1, 1), sum(map(config.transformer.is_softmax, range(config.transformer.depth)))
    nothing = torch.zeros(1, 2, 2)
    return WorldState(
        model="marked",
        index=torch.zeros(1, dtype=torch.int64),
        decoded=torch.ones(1, dtype=torch.int64),
        seed=torch.zeros(1, dtype=torch.int64),
        pose=torch.eye(4)[None],
        intrinsics=torch.ones(1, 4),
        text=zeros,
        text_mask=zeros.bool(),
        start=zeros,
        previous=zeros,
        delta=(DeltaCache(nothing, nothing, nothing, nothing),) * (config.transformer.depth - softmax),
        tails=(zeros,) * config.transformer.depth,
        window=(),
    )


def marked(config: WorldConfig, mark: int) -> tuple[BlockCache, ...]:
    """What a chunk would write, with its number in every tensor."""
    tokens = config.block * 2
    keys = torch.full((1, config.transformer.heads, tokens, config.transformer.head_dim), float(mark))
    state = torch.full((1, 1, 2, 2), float(mark))  # one chunk
    mixers = {True: SoftmaxCache(keys, keys, keys, keys), False: DeltaCache(state, state, state, state)}
    tail = torch.full((1, 1, 1), float(mark))
    return tuple(BlockCache(mixers[config.transformer.is_softmax(i)], tail) for i in range(config.transformer.depth))


def marks_at(entry, world: int) -> int:
    return int(entry.blocks[0].keys[world, 0, 0, 0])


def marks(state: WorldState) -> list[int]:
    """The chunks in a world's window."""
    return [marks_at(entry, 0) for entry in state.window]


@pytest.mark.parametrize(
    ("recent", "windows"),
    [
        (0, [[], [0], [0], [0], [0], [0]]),
        (1, [[], [0], [0, 1], [0, 2], [0, 3], [0, 4]]),
        (2, [[], [0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]]),
        (3, [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 2, 3, 4]]),
        (99, [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]),
    ],
)
@pytest.mark.parametrize("config", [nano(), tiny_sana()], ids=lambda config: config.name)
def test_a_chunk_sees_the_sink_and_the_recent_chunks(
    config: WorldConfig, recent: int, windows: list[list[int]]
) -> None:
    config = dataclasses.replace(config, recent=recent * config.block)
    state = empty_world(config)
    for chunk, expected in enumerate(windows):
        assert marks(state) == expected
        caches, past, mask = read_memory(state, config)
        assert mask is None
        assert past == len(expected) * config.block * 2
        for i, cache in enumerate(caches):
            if config.transformer.is_softmax(i):
                assert isinstance(cache.mixer, SoftmaxCache)
                for tensor in vars(cache.mixer).values():
                    assert tensor[0, 0, :: config.block * 2, 0].tolist() == expected
            elif chunk:  # recurrent states and tails always come from the chunk before
                assert {int(t.flatten()[0]) for t in named_tensors(cache).values()} == {chunk - 1}
        state = write_memory(state, marked(config, chunk), config)


def test_forks_share_their_window(tiny) -> None:
    state = tiny.run([1], 3)
    one, _ = tiny.model.step(state, tiny.poses([1], 3))
    two, _ = tiny.model.step(state, tiny.poses([2], 3))
    for entry, other in zip(one.window[0].blocks, two.window[0].blocks, strict=True):
        assert entry.keys is other.keys


# ---- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(ragged: WorldState, tmp_path: Path) -> Path:
    ragged.save(tmp_path / "worlds.safetensors")
    return tmp_path / "worlds.safetensors"


def rewrite(file: Path, change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> None:
    with safe_open(file, "pt") as opened:
        metadata = dict(opened.metadata())
    tensors = load_file(file)
    change(tensors, metadata)
    save_file({name: t.clone() for name, t in tensors.items()}, file, metadata=metadata)


def test_worlds_out_of_step_survive_a_file(saved: Path, ragged: WorldState, assert_same: Callable) -> None:
    assert_same(WorldState.load(saved), ragged)
    assert_same(WorldState.load(str(saved), "cpu"), ragged)


def test_a_loaded_state_owns_aligned_memory(saved: Path) -> None:
    tensors = named_tensors(WorldState.load(saved))
    saved.write_bytes(b"")  # the file may go
    assert all(t.is_contiguous() and t.data_ptr() % 64 == 0 for t in tensors.values() if t.numel())
    assert len({t.untyped_storage().data_ptr() for t in tensors.values() if t.numel()}) == len(
        [t for t in tensors.values() if t.numel()]
    )
    assert all(torch.isfinite(t).all() for t in tensors.values())


def test_a_file_says_what_it_is(saved: Path, ragged: WorldState) -> None:
    with safe_open(saved, "pt") as file:
        assert file.metadata() == {"format": "sanawm-world-state", "version": "1", "model": ragged.model}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.update(version="2"), "expected format 'sanawm-world-state' version 1, got .* version 2"),
        (lambda t, m: m.update(format="cake"), "expected format 'sanawm-world-state' version 1, got 'cake'"),
        (lambda t, m: m.clear(), "expected format 'sanawm-world-state' version 1, got None version None"),
        (lambda t, m: m.pop("model"), "expected a tensor or field 'model', got a file without it"),
        (lambda t, m: t.pop("pose"), "expected a tensor or field 'pose', got a file without it"),
        (lambda t, m: t.pop("delta.1.camera"), "expected a tensor or field 'delta.1.camera', got a file without it"),
    ],
)
def test_a_file_of_another_kind_is_refused(saved: Path, change: Callable, message: str) -> None:
    rewrite(saved, change)
    with pytest.raises(StateError, match=f"worlds.safetensors: {message}"):
        WorldState.load(saved)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StateError, match=r"worlds.safetensors: expected a world state in a safetensors file, got"):
        WorldState.load(saved)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"none.safetensors: expected a world state in a safetensors file, got"):
        WorldState.load(tmp_path / "none.safetensors")


def test_a_file_of_another_model_is_refused_by_a_step(saved: Path, tiny) -> None:
    rewrite(saved, lambda tensors, metadata: metadata.update(model="tiny-sana-of-someone-else"))
    state = WorldState.load(saved)
    poses = tiny.poses([0, 1, 2, 3], 0)
    with pytest.raises(
        StateError, match=f"expected a state of model {tiny.model.fingerprint}, got one of tiny-sana-of"
    ):
        tiny.model.step(state, poses)


# ---- nested values ----------------------------------------------------------------------------------------


def test_a_nested_value_is_named_and_built_again(ragged: WorldState, assert_same: Callable) -> None:
    tensors = named_tensors(ragged)
    assert {"index", "delta.0.numerator", "window.1.blocks.0.camera_keys", "tails.3"} <= tensors.keys()
    assert_same(build(WorldState, tensors, {"model": ragged.model}), ragged)


def test_mapping_keeps_the_structure_and_what_is_no_tensor(ragged: WorldState) -> None:
    twice = map_tensors(torch.add, ragged, ragged)
    assert type(twice) is WorldState
    assert twice.model == ragged.model
    assert torch.equal(twice.pose, 2 * ragged.pose)
    with pytest.raises(StateError, match="expected equal values in every part"):
        map_tensors(torch.add, ragged, dataclasses.replace(ragged, model="other"))
