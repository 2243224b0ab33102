"""What one forward may see: chunks, caches, masks, and the parts on their own against plain definitions."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given as given_  # `given` is what a forward is conditioned on
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from world_model.attention import DeltaRuleAttention, Grid, SoftmaxAttention, SoftmaxCache, visibility
from world_model.camera import camera_rows
from world_model.config import TransformerConfig
from world_model.errors import BackendError, InputError
from world_model.geometry import camera_rays, ropes
from world_model.train.initialise import initialise
from world_model.transformer import BlockCache, Conditions, SanaWM
from world_model.tree import map_tensors, named_tensors

ROOT = Path(__file__).parents[2]
MODEL = ("config", "geometry", "camera", "attention", "layers", "transformer")
FRAMES, ROWS, COLUMNS = 10, 2, 3
CFG = TransformerConfig(
    latent_channels=4,
    caption_channels=8,
    plucker_channels=12,
    depth=4,
    softmax_every=2,
    heads=2,
    head_dim=16,
    main_scale_width=16,
    camera_scale_width=16,
)


def test_the_whole_model_stays_small() -> None:
    files = [ROOT / "world_model" / f"{name}.py" for name in MODEL]
    files += sorted((ROOT / "kernels" / "delta_rule").glob("[!tb]*.py"))  # the specification, not its kernels
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {"reference.py", "__init__.py"} <= lengths.keys()
    assert sum(lengths.values()) < 900, lengths


# ---- what a forward is given ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """Inputs of whole clips of two worlds."""

    latents: Tensor
    time: Tensor
    text: Tensor
    mask: Tensor
    camera: Tensor
    plucker: Tensor
    index: Tensor

    def part(self, frames: slice) -> "Clip":
        return dataclasses.replace(
            self,
            latents=self.latents[:, :, frames],
            time=self.time[:, frames],
            camera=self.camera[:, frames],
            plucker=self.plucker[:, :, frames],
            index=self.index[:, frames],
        )

    def world(self, i: int) -> "Clip":
        return Clip(**{name: value[i : i + 1] for name, value in vars(self).items()})

    def given(self, transformer: SanaWM, **options: object) -> Conditions:
        return transformer.condition(self.text, self.mask, self.camera, self.plucker, self.index, **options)

    def velocity(self, transformer: SanaWM, **options: object) -> Tensor:
        return transformer(self.latents, self.time, self.given(transformer, **options))[0]


def turning_path(batch: int, frames: int, draw: torch.Generator) -> Tensor:
    skew = torch.zeros(batch, frames, 3, 3)
    skew[..., 0, 2] = torch.linspace(0, 1, frames)
    poses = torch.eye(4).repeat(batch, frames, 1, 1)
    poses[..., :3, :3] = torch.linalg.matrix_exp(skew - skew.mT)
    poses[..., :3, 3] = 0.3 * torch.randn(batch, frames, 3, generator=draw).cumsum(1)
    return poses


@pytest.fixture(scope="module")
def clip() -> Clip:
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    return Clip(
        latents=normal(2, 4, FRAMES, ROWS, COLUMNS),
        time=torch.randint(0, 1000, (2, FRAMES), generator=draw).float(),
        text=normal(2, 5, 8),
        mask=torch.tensor([[True] * 5, [True, True, False, False, False]]),
        camera=camera_rows(turning_path(2, FRAMES, draw), torch.tensor([2.0, 2.0, 1.5, 1.0]) + 0.1 * normal(2, 1, 4)),
        plucker=normal(2, 12, FRAMES, ROWS, COLUMNS),
        index=torch.arange(FRAMES).expand(2, -1),
    )


@pytest.fixture(scope="module")
def transformer(randomise: Callable[..., torch.nn.Module]) -> SanaWM:
    model = SanaWM(CFG)
    randomise(model.eval().requires_grad_(False))
    return model


def assert_close(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert got.shape == expected.shape
    assert (got - expected).norm() <= tolerance * expected.norm()


# ---- chunks -----------------------------------------------------------------------------------------------

CHUNKS = [(4, 3, 3), (1,) * 10, (2, 5, 1, 2), (10,)]


@pytest.mark.parametrize("chunks", CHUNKS)
def test_later_chunks_never_change_earlier_outputs(transformer: SanaWM, clip: Clip, chunks: tuple[int, ...]) -> None:
    before = clip.velocity(transformer, chunks=chunks)
    for start in itertools.accumulate(chunks[:-1]):
        later = torch.arange(FRAMES) >= start
        changed = dataclasses.replace(
            clip,
            latents=torch.where(later[:, None, None], -clip.latents, clip.latents),
            time=torch.where(later, 1000 - clip.time, clip.time),
            camera=torch.where(later[:, None], clip.camera.flip(0), clip.camera),
            plucker=torch.where(later[:, None, None], -clip.plucker, clip.plucker),
        )
        after = changed.velocity(transformer, chunks=chunks)
        assert_close(after[:, :, :start], before[:, :, :start], 1e-6)
        assert (after - before)[:, :, start:].abs().amin(dim=(0, 1, 3, 4)).min() > 0


@pytest.mark.parametrize("chunks", CHUNKS)
def test_a_chunk_sees_all_of_itself(transformer: SanaWM, clip: Clip, chunks: tuple[int, ...]) -> None:
    before = clip.velocity(transformer, chunks=chunks)
    start = 0
    for frames in chunks:
        latents = clip.latents.clone()
        latents[:, :, start + frames - 1] *= -1
        after = dataclasses.replace(clip, latents=latents).velocity(transformer, chunks=chunks)
        assert (after - before)[:, :, start].abs().max() > 1e-4
        start += frames


@pytest.mark.parametrize("chunks", CHUNKS)
def test_the_first_chunk_is_a_dense_call(transformer: SanaWM, clip: Clip, chunks: tuple[int, ...]) -> None:
    dense = clip.part(slice(0, chunks[0])).velocity(transformer)
    assert_close(clip.velocity(transformer, chunks=chunks)[:, :, : chunks[0]], dense)


def stream(transformer: SanaWM, clip: Clip, chunks: Sequence[int]) -> Tensor:
    """Velocities of a clip chunk by chunk, each from the caches of those before, whose softmax window holds all."""
    out, cache, past, start = [], None, 0, 0
    for frames in chunks:
        part = clip.part(slice(start, start + frames))
        velocity, written = transformer(part.latents, part.time, part.given(transformer, past=past), cache)
        cache = tuple(carried(block, before) for block, before in zip(written, cache or written, strict=True))
        if start == 0:
            cache = tuple(carried(block, None) for block in written)
        out.append(velocity)
        start, past = start + frames, past + frames * ROWS * COLUMNS
    return torch.cat(out, 2)


def carried(written: BlockCache, before: BlockCache | None) -> BlockCache:
    """The cache that a block's next chunk reads."""
    mixer = written.mixer
    if not isinstance(mixer, SoftmaxCache):
        mixer = map_tensors(lambda x: x[:, -1], mixer)
    elif before is not None:
        mixer = map_tensors(lambda *xs: torch.cat(xs, 2), before.mixer, mixer)
    return BlockCache(mixer, written.feed_forward[:, -1])


@pytest.mark.parametrize("chunks", CHUNKS)
def test_streaming_equals_one_chunk_causal_call(transformer: SanaWM, clip: Clip, chunks: tuple[int, ...]) -> None:
    assert_close(stream(transformer, clip, chunks), clip.velocity(transformer, chunks=chunks))


@settings(max_examples=8, deadline=None)
@given_(data=st.data())
def test_streaming_equals_one_chunk_causal_call_on_any_grid(transformer: SanaWM, clip: Clip, data) -> None:
    chunks: list[int] = []
    while sum(chunks) < 8:
        chunks.append(data.draw(st.integers(1, 8 - sum(chunks))))
    part = clip.part(slice(0, 8))
    assert_close(stream(transformer, part, chunks), part.velocity(transformer, chunks=tuple(chunks)))


@pytest.mark.parametrize("chunks", [(4, 3, 3), (1,) * 10])
def test_a_call_hands_on_what_each_chunk_would(transformer: SanaWM, clip: Clip, chunks: tuple[int, ...]) -> None:
    given = clip.given(transformer, chunks=chunks)
    _, whole = transformer(clip.latents, clip.time, given)
    first = clip.part(slice(0, chunks[0]))
    _, alone = transformer(first.latents, first.time, first.given(transformer))
    for block, expected in zip(whole, alone, strict=True):
        assert_close(block.feed_forward[:, :1], expected.feed_forward)
        for name, tensor in named_tensors(expected.mixer).items():
            got = getattr(block.mixer, name)
            entry = got[:, :, : tensor.shape[2]] if isinstance(block.mixer, SoftmaxCache) else got[:, :1]
            assert_close(entry, tensor)


def test_softmax_sees_the_first_chunk_and_the_recent_ones() -> None:
    grid, tokens = Grid(8, 1, 2, (2, 1, 2, 1, 2)), 2
    mask = visibility(grid, 3, None, 0, torch.device("cpu"))
    assert mask is not None
    seen = mask[0, 0, ::tokens, ::tokens].int().tolist()
    assert seen == [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 0, 1, 1, 1, 1, 1],
        [1, 1, 0, 1, 1, 1, 1, 1],
    ]


# ---- worlds of one batch ----------------------------------------------------------------------------------


def test_worlds_at_different_indices_share_a_forward(transformer: SanaWM, clip: Clip) -> None:
    apart = dataclasses.replace(clip, index=clip.index + torch.tensor([[0], [2000]]))
    both = apart.velocity(transformer)
    for i in range(2):
        assert_close(apart.world(i).velocity(transformer), both[i : i + 1])
    assert (both[1] - clip.velocity(transformer)[1]).abs().max() < 0.05 * both[1].abs().max()  # rotations are relative


def test_a_past_that_a_world_does_not_have_is_as_good_as_none(transformer: SanaWM, clip: Clip) -> None:
    first, part, tokens = clip.part(slice(0, 4)), clip.part(slice(4, 7)), 4 * ROWS * COLUMNS
    _, written = transformer(first.latents, first.time, first.given(transformer))
    fresh = transformer.empty_cache(2, part.given(transformer).grid, part.latents)
    cache = tuple(
        carried(block, None) if isinstance(block.mixer, SoftmaxCache) else empty
        for block, empty in zip(written, fresh, strict=True)
    )
    cache = tuple(dataclasses.replace(c, feed_forward=e.feed_forward) for c, e in zip(cache, fresh, strict=True))
    nothing = torch.zeros(2, tokens, dtype=torch.bool)
    given = part.given(transformer, past=tokens, past_mask=nothing)
    assert_close(transformer(part.latents, part.time, given, cache)[0], part.velocity(transformer))
    there = part.given(transformer, past=tokens, past_mask=~nothing)
    without = part.given(transformer, past=tokens)
    assert_close(*(transformer(part.latents, part.time, g, cache)[0] for g in (there, without)), 1e-6)


def test_padded_words_do_not_matter(transformer: SanaWM, clip: Clip) -> None:
    noisy = torch.where(clip.mask[..., None], clip.text, 50.0)
    before = clip.velocity(transformer)
    assert torch.equal(dataclasses.replace(clip, text=noisy).velocity(transformer), before)
    unmasked = dataclasses.replace(clip, mask=torch.ones_like(clip.mask)).velocity(transformer)
    assert (unmasked - before)[1].abs().max() > 1e-3
    assert torch.equal(unmasked[0], before[0])


def test_times_lose_their_fraction(transformer: SanaWM, clip: Clip) -> None:
    later = dataclasses.replace(clip, time=clip.time + 0.9)
    assert torch.equal(later.velocity(transformer), clip.velocity(transformer))
    assert not torch.equal(
        dataclasses.replace(clip, time=clip.time + 1).velocity(transformer), clip.velocity(transformer)
    )


def test_nothing_given_is_changed(transformer: SanaWM, clip: Clip) -> None:
    part = clip.part(slice(0, 4))
    _, written = transformer(part.latents, part.time, part.given(transformer))
    cache = tuple(carried(block, None) for block in written)
    copies = map_tensors(torch.clone, cache)
    later, latents = clip.part(slice(4, 7)), clip.latents.clone()
    given = later.given(transformer, past=4 * ROWS * COLUMNS)
    transformer(later.latents, later.time, given, cache)
    assert torch.equal(clip.latents, latents)
    for name, tensor in named_tensors(cache).items():
        assert torch.equal(tensor, named_tensors(copies)[name]), name


# ---- cameras ----------------------------------------------------------------------------------------------


def moved(clip: Clip) -> Clip:
    """The same clip in a world that was turned and shifted as a whole."""
    whole = turning_path(1, 5, torch.Generator().manual_seed(9))[:, -1:]
    poses = whole @ clip.camera[..., :16].unflatten(-1, (4, 4))
    return dataclasses.replace(clip, camera=torch.cat([poses.flatten(-2), clip.camera[..., 16:]], -1))


@pytest.mark.parametrize(
    ("kind", "envelope", "invariant"),
    [(SoftmaxAttention, False, True), (SoftmaxAttention, True, False), (DeltaRuleAttention, False, False)],
)
def test_only_softmax_without_envelope_ignores_where_the_world_lies(
    randomise, clip: Clip, kind: type, envelope: bool, invariant: bool
) -> None:
    attention = kind(dataclasses.replace(CFG, rms_envelope=envelope)).eval().requires_grad_(False)
    randomise(attention)
    grid = Grid(FRAMES, ROWS, COLUMNS, (FRAMES,))
    rope, camera_rope = ropes(clip.index, ROWS, COLUMNS, CFG.head_dim)
    x = torch.randn(2, FRAMES, ROWS * COLUMNS, CFG.width, generator=torch.Generator().manual_seed(4))

    def output(camera: Tensor) -> Tensor:
        rays = camera_rays(camera, camera_rope, ROWS, COLUMNS)
        return attention(x, grid, rope, rays, None, attention.empty_cache(2, grid, x))[0]

    here, there = output(clip.camera), output(moved(clip).camera)
    assert ((here - there).norm() / here.norm() < 1e-5) == invariant
    assert not torch.allclose(here, output(clip.camera.flip(0)), rtol=1e-3)  # relative motion always counts


def test_a_fresh_model_ignores_cameras_exactly(clip: Clip) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SanaWM(CFG).eval().requires_grad_(False)
        initialise(model)
    for layer in (model.t_block[-1], model.final_layer.linear):  # these start at zero too, and would hide all else
        torch.nn.init.normal_(layer.weight, std=0.1)
    before = clip.velocity(model)
    other = dataclasses.replace(clip, camera=moved(clip).camera.flip(0), plucker=-clip.plucker)
    assert before.abs().max() > 0.1
    assert torch.equal(other.velocity(model), before)


# ---- training and types -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [(4, 3, 3), (1,) * 10])
def test_every_weight_is_used(randomise, clip: Clip, chunks: tuple[int, ...]) -> None:
    model = randomise(SanaWM(CFG), seed=2)
    clip.velocity(model, chunks=chunks).square().sum().backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    assert not idle


def test_half_precision_keeps_geometry_and_recurrence_in_float32(transformer: SanaWM, clip: Clip) -> None:
    half = SanaWM(CFG).bfloat16().eval()
    half.load_state_dict(transformer.state_dict())
    given = clip.given(half, chunks=(4, 3, 3))
    velocity, written = half(clip.latents.bfloat16(), clip.time, given)
    assert velocity.dtype == torch.bfloat16
    assert {given.rope.cos.dtype, given.rays.query.dtype} == {torch.float32}
    assert torch.equal(given.rays.query, clip.given(transformer, chunks=(4, 3, 3)).rays.query)
    assert {written[0].mixer.numerator.dtype, written[0].mixer.camera.dtype} == {torch.float32}
    assert_close(velocity.float(), clip.velocity(transformer, chunks=(4, 3, 3)), 0.05)


def test_an_unknown_backend_is_refused_when_the_model_is_made() -> None:
    with pytest.raises(BackendError, match=r"expected one of .*torch.*got 'abacus'"):
        SanaWM(dataclasses.replace(CFG, backend="abacus"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth: expected a positive number, got 0"),
        ({"camera_scale_width": -1}, "camera_scale_width: expected a positive number, got -1"),
        ({"mlp_ratio": math.nan}, "mlp_ratio: expected a positive number, got nan"),
        ({"head_dim": 12}, "head_dim: .*4x4 ray matrices, got 12"),
        ({"key_conv": 1}, "key_conv: expected at least two taps, got 1"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CFG, **change)
