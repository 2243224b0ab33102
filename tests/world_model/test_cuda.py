"""Worlds on a GPU against the same worlds on the CPU: equal noise, close latents, states that travel.

unittest, not pytest: `make gpu-check` runs this file on machines that have no pytest.
"""

import copy
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from world_model.config import WorldConfig
from world_model.model import WorldModel
from world_model.presets import nano, tiny_sana
from world_model.state import WorldState

DEVICE = "cuda"
CONFIGS = [nano(vocabulary=("room", "red")), tiny_sana()]


def twins(config: WorldConfig) -> tuple[WorldModel, WorldModel]:
    """One set of random weights on the CPU and on the GPU. No layer is left at zero, where it would hide."""
    on_cpu = WorldModel.random(config, seed=1)
    draw = torch.Generator().manual_seed(1)
    parts = [on_cpu.transformer, on_cpu.tokenizer, on_cpu.text]
    for weight in (weight for part in parts for weight in part.parameters() if not weight.any()):
        weight.data.normal_(0, 0.02, generator=draw)
    on_cpu = WorldModel(config, *parts)
    return on_cpu, WorldModel(config, *(copy.deepcopy(part).to(DEVICE) for part in parts))


def start(model: WorldModel) -> tuple[WorldState, Tensor]:
    pixels = np.random.default_rng(2).integers(0, 256, (2, *model.size, 3), dtype=np.uint8)
    return model.reset(pixels, prompts=["red room", ""], seeds=[5, 6])


def path(config: WorldConfig) -> Tensor:
    """(2, F, 4, 4): forward, and to the right."""
    poses = torch.eye(4).repeat(2, config.frames_per_step, 1, 1)
    distance = 0.05 * torch.arange(1, config.frames_per_step + 1)
    poses[0, :, 2, 3], poses[1, :, 0, 3] = distance, distance
    return poses


def relative(got: Tensor, want: Tensor) -> float:
    return float((got.cpu() - want).norm() / want.norm())


@unittest.skipUnless(torch.cuda.is_available(), "needs a CUDA device")
class WorldOnCuda(unittest.TestCase):
    def setUp(self) -> None:
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False  # TF32 keeps ten bits; the comparison is of float32
        self.addCleanup(setattr, torch.backends.cudnn, "allow_tf32", before)

    def test_a_step_equals_the_cpus(self) -> None:
        for config in CONFIGS:
            with self.subTest(config.name):
                cpu, gpu = twins(config)
                (before, first), (before_gpu, first_gpu) = start(cpu), start(gpu)
                assert cpu.fingerprint == gpu.fingerprint
                assert torch.equal(first, first_gpu)
                after, latents = cpu.step_latent(before, path(config))
                after_gpu, latents_gpu = gpu.step_latent(before_gpu, path(config))
                assert latents_gpu.values.device.type == DEVICE
                assert relative(latents_gpu.values, latents.values) < 1e-4
                frames, frames_gpu = cpu.decode(after, latents)[1], gpu.decode(after_gpu, latents_gpu)[1]
                assert (frames.int() - frames_gpu.int()).abs().max() <= 2

    def test_a_state_travels_from_gpu_to_cpu(self) -> None:
        for config in CONFIGS:
            with self.subTest(config.name), tempfile.TemporaryDirectory() as folder:
                cpu, gpu = twins(config)
                state, _ = gpu.step(start(gpu)[0], path(config))
                state.save(Path(folder) / "world.safetensors")
                there = WorldState.load(Path(folder) / "world.safetensors", device=DEVICE)
                here = WorldState.load(Path(folder) / "world.safetensors")
                again = gpu.step_latent(there, path(config))[1].values
                assert torch.equal(gpu.step_latent(state, path(config))[1].values, again), "bit for bit"
                assert relative(again, cpu.step_latent(here, path(config))[1].values) < 1e-4


if __name__ == "__main__":
    unittest.main()
