"""What a flow run measures on held-out clips while it trains.

A chunk drawn after the truth and one drawn after the model's own chunks tell apart what a step gets wrong and what
adds up over steps.

Shapes: B clips, T latents, C channels, Y, X cells, F frames.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from world_model import whole_clip
from world_model.clips import Clips, noised, select
from world_model.pictures import sheet
from world_model.train import streaming
from world_model.train.flow_model import FlowModel
from world_model.train.loop import generator
from world_model.train.losses import velocity_error
from world_model.train.rollout import rollout
from world_model.vae import VideoTokenizer

TIMES = (1000.0, 750.0, 400.0)
BIDIRECTIONAL_STEPS = 16
BIDIRECTIONAL_SHIFT = 3.0


def measure(
    model: FlowModel, tokenizer: VideoTokenizer, tensors: Mapping[str, Tensor], mode: str
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Held-out numbers: velocity loss at three times given what the mode gives (streaming: the true context), PSNR
    against decoded truth second by second, of played clips, of the repeated start and, streaming, of every chunk made
    after the true ones ("forced") and after the start alone ("alone"); and a picture of truth and play."""
    clips = model.clips(tensors)
    latents = clips.latents
    noise = torch.randn(latents[:, :, 1:].shape, generator=generator(0, 0, "measure")).to(latents)
    numbers = _losses(model, clips, noise, mode)
    truth = tokenizer.decode(latents, None)[0].clamp(-1, 1)
    played = tokenizer.decode(_play(model, clips, noise, mode), None)[0].clamp(-1, 1)
    videos = {"model": played, "repeat": truth[:, :, :1].expand_as(truth)}
    if mode == "streaming":
        for name, made in (("forced", made_after_truth), ("alone", made_alone)):
            videos[name] = tokenizer.decode(made(model, clips, noise), None)[0].clamp(-1, 1)
    for name, video in videos.items():
        psnr = psnr_by_second(video, truth, model.config.fps)
        numbers |= {f"psnr_{name}_{second}s": value for second, value in enumerate(psnr, 1)}
    stride = model.config.tokenizer.temporal_stride
    rows = [video[i, :, :: 2 * stride].movedim(1, 0) for i in range(min(4, len(truth))) for video in (truth, played)]
    return numbers, {"flow": sheet(rows)}


def measure_losses(model: FlowModel, tensors: Mapping[str, Tensor], mode: str) -> dict[str, float]:
    """The same losses where nothing can decode a picture: means over clips, one after the other, so that what fits
    while it trains fits here."""
    noise = torch.randn(tensors["latents"][:, :, 1:].shape, generator=generator(0, 0, "measure"))
    found = []
    for i, drawn in enumerate(noise.split(1)):
        clips = model.clips({name: x[i : i + 1] for name, x in tensors.items()})
        found.append(_losses(model, clips, drawn.to(clips.latents), mode))
    return {name: sum(each[name] for each in found) / len(found) for name in found[0]}


def psnr_by_second(video: Tensor, truth: Tensor, fps: float) -> list[float]:
    """Mean PSNR in dB of the frames after the first, second by second; (B, 3, F, H, W) in [-1, 1]."""
    error = ((video - truth).square() / 4).mean((1, 3, 4))[:, 1:]
    psnr = -10 * error.clamp_min(1e-10).log10()  # (B, F-1)
    return [float(frames.mean()) for frames in psnr.split(round(fps), 1)]


def _losses(model: FlowModel, clips: Clips, noise: Tensor, mode: str) -> dict[str, float]:
    return {f"loss_{time:.0f}": float(_loss_at(time, model, clips, noise, mode)) for time in TIMES}


def _loss_at(time: float, model: FlowModel, clips: Clips, noise: Tensor, mode: str) -> Tensor:
    latents, later = clips.latents, clips.latents[:, :, 1:]
    times = torch.full((len(latents), latents.shape[2]), time, device=latents.device)
    noisy = noised(later, noise, times[:, 1:])
    if mode == "streaming":
        velocity = streaming.velocities(model.transformer, model.config, clips, latents, noisy, times[:, 1:])
    else:
        times[:, 0] = 0
        whole, chunks = torch.cat([latents[:, :, :1], noisy], 2), _chunks(latents.shape[2], model, mode)
        velocity = whole_clip.velocities(model.transformer, model.config, clips, whole, times, chunks)[:, :, 1:]
    return velocity_error(model, velocity, noise - later).mean()


def _play(model: FlowModel, clips: Clips, noise: Tensor, mode: str) -> Tensor:
    if mode != "bidirectional":
        return rollout(model, clips, noise)
    times = whole_clip.euler_times(BIDIRECTIONAL_STEPS, BIDIRECTIONAL_SHIFT)
    whole = torch.cat([clips.latents[:, :, :1], noise], 2)
    *_, (_, latents) = whole_clip.denoise(model.transformer, model.config, clips, whole, times)
    return latents


def made_after_truth(model: FlowModel, clips: Clips, noise: Tensor) -> Tensor:
    """Every chunk as play would make it after the true ones."""
    made = noise
    for now, then in itertools.pairwise(model.config.steps):
        times = torch.full((len(noise), noise.shape[2]), float(now), device=noise.device)
        velocity = streaming.velocities(model.transformer, model.config, clips, clips.latents, made, times)
        made = made - (now - then) / 1000 * velocity.to(made.dtype)
    return torch.cat([clips.latents[:, :, :1], made], 2)


def made_alone(model: FlowModel, clips: Clips, noise: Tensor) -> Tensor:
    """Every chunk as it is made after the start latent and nothing else, however far that is."""
    count, later = len(noise), noise.shape[2]
    chunk = torch.arange(1, 1 + later, device=noise.device).repeat(count)  # (B*(T-1),)
    each = select(clips, torch.arange(count, device=noise.device).repeat_interleave(later))
    kept = torch.stack([torch.zeros_like(chunk), chunk], 1)
    pairs = each.latents[torch.arange(len(chunk))[:, None], :, kept].transpose(1, 2)  # (B*(T-1), C, 2, Y, X)
    each = dataclasses.replace(each, latents=pairs, kept=kept, frame_index=kept)
    made = made_after_truth(model, each, noise.transpose(1, 2).flatten(0, 1)[:, :, None])[:, :, 1]
    return torch.cat([clips.latents[:, :, :1], made.unflatten(0, (count, later)).transpose(1, 2)], 2)


def _chunks(frames: int, model: FlowModel, mode: str) -> tuple[int, ...]:
    return (frames,) if mode == "bidirectional" else whole_clip.training_chunks(frames, model.config)
