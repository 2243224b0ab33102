"""How well a world model follows true episodes: frames, depth, poses and intrinsics in, a table out.

Each episode's camera path is given to the model from its first frame, and what it generates is compared with the
truth second by second. Beside the model stand two baselines that any model must beat, the start frame repeated and
the start frame warped by the commanded rotation; the truth itself, which shows the error of the rotation estimate;
and the truth through the model's tokenizer, which bounds what the model can reach. All figures are means over frames
of PSNR, SSIM and so on a frame; frames of which the start saw less than MIN_SEEN are left out of the masked ones
and counted. Imports torch and numpy only: training calls it on bare machines.

Shapes: B worlds, T frames of an episode, F frames of a step, H, W pixels, C latent channels, Y, X latent cells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from world_model.egomotion import estimate_rotation, exp_rotation, log_rotation
from world_model.errors import EpisodeError, InputError
from world_model.image_metrics import frechet_distance, gradient_energy, psnr, ssim
from world_model.model import WorldModel, to_frames, to_video
from world_model.reprojection import seen_by_start, warp_start
from world_model.state import WorldState
from world_model.train.data.episode import Episode

SYSTEMS = ("model", "repeat", "warp", "tokenizer", "truth")
ALL = "all"
MIN_SEEN = 0.02  # share of a frame's pixels
MIN_COMMANDED = 1.0  # deg/s: below it no gain is computed


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of path, one second, one system. NaN: does not apply.

    psnr, ssim over all pixels, psnr_seen, ssim_seen over those that the start frame saw, left_out the frames with too
    few of these; gradient: mean |dx| + |dy| as a share of the truth's; change: mean difference of neighbouring frames
    in 1/255. Of rotation, in deg/s: commanded, motion (mean over frames, jitter included), residual (between the
    commanded and recovered rotation of the whole second), and gain, the recovered rotation along the commanded one
    as a share of it. frechet: distance of latent statistics to the truth's, for kind "all" only.
    """

    kind: str
    second: int
    system: str
    episodes: int
    psnr: float
    psnr_seen: float
    ssim: float
    ssim_seen: float
    left_out: int
    gradient: float
    change: float
    commanded: float
    gain: float
    residual: float
    motion: float
    frechet: float


@dataclass(frozen=True)
class Fidelity:
    """The table, and the frames (T, H, W, 3) uint8 that the model generated for each episode, start frame first."""

    rows: tuple[Row, ...]
    generated: tuple[Tensor, ...]


@dataclass(frozen=True)
class Scores:
    """One system on one episode; the first axis is frames 1 .. T-1."""

    psnr: Tensor  # (T - 1,)
    psnr_seen: Tensor  # NaN where the start saw too little
    ssim: Tensor
    ssim_seen: Tensor
    gradient: Tensor
    change: Tensor
    rotation: Tensor  # (T - 1, 3) radians a frame; NaN: not estimated
    latents: Tensor  # (n, 2C) means and deviations over cells of the latents after the first


@torch.no_grad()
def measure(
    model: WorldModel,
    episodes: Sequence[Episode],
    *,
    batch: int = 6,
    progress: Callable[[int], None] = lambda done: None,
) -> Fidelity:
    """Roll the model along every episode and compare. World i's seed is i, so results do not depend on the batch.

    batch: worlds at once. progress is called with the number of episodes done since the last call. Raises
    EpisodeError for an episode without depth, kind or a full second, or of another frame size.
    """
    length = check_episodes(model, episodes)
    generated: list[Tensor] = []
    scores: list[dict[str, Scores]] = []
    for first in range(0, len(episodes), batch):
        some = episodes[first : first + batch]
        generated += rollout(model, some, length, seeds=range(first, first + len(some)))
        for episode, frames in zip(some, generated[first:], strict=True):
            scores.append(score_episode(model, episode, frames))
            progress(1)
    rows = tabulate(episodes, scores, fps=episodes[0].fps, stride=model.config.tokenizer.temporal_stride)
    return Fidelity(tuple(rows), tuple(generated))


def check_episodes(model: WorldModel, episodes: Sequence[Episode]) -> int:
    """How many frames of every episode are used: the start, and whole steps and latents after it."""
    if not episodes:
        raise InputError("episodes: expected at least one, got none")
    for number, episode in enumerate(episodes):
        if episode.frames.shape[1:3] != model.size:
            raise EpisodeError(f"episode {number}: expected frames {model.size}, got {episode.frames.shape[1:3]}")
        if episode.depth is None or "path" not in episode.meta:
            raise EpisodeError(f"episode {number}: expected depth and meta['path'], got {sorted(episode.meta)}")
        if episode.fps != episodes[0].fps:
            raise EpisodeError(f"episode {number}: expected {episodes[0].fps} frames/s, got {episode.fps}")
    step = model.config.frames_per_step
    length = (min(len(e.frames) for e in episodes) - 1) // step * step + 1
    if length - 1 < episodes[0].fps:
        raise EpisodeError(f"episodes: expected at least a second in steps of {step} frames, got {length} frames")
    return length


def begin(model: WorldModel, episodes: Sequence[Episode], seeds: Sequence[int]) -> tuple[WorldState, Tensor]:
    """Worlds that start where the episodes do, and their first frames (B, 1, H, W, 3) uint8."""
    lenses = np.stack([episode.intrinsics[0] for episode in episodes])
    prompts = [episode.caption for episode in episodes]
    return model.reset([episode.frames[0] for episode in episodes], prompts, lenses, seeds)


@torch.no_grad()
def rollout(model: WorldModel, episodes: Sequence[Episode], length: int, seeds: Sequence[int]) -> list[Tensor]:
    """Generated frames (length, H, W, 3) uint8 along each episode's true poses, its own frame 0 first."""
    step = model.config.frames_per_step
    state, frames = begin(model, episodes, seeds)
    path = torch.from_numpy(np.stack([episode.c2w[:length] for episode in episodes]))
    video = [frames]
    for first in range(1, length, step):
        state, frames = model.step(state, path[:, first : first + step])
        video.append(frames)
    return list(torch.cat(video, 1))


def score_episode(model: WorldModel, episode: Episode, generated: Tensor) -> dict[str, Scores]:
    """The model's frames (T, H, W, 3) uint8, both baselines, the tokenizer and the truth, against the truth."""
    length = len(generated)
    truth = torch.from_numpy(episode.frames[:length])
    c2w, lens = torch.from_numpy(episode.c2w[:length]), torch.from_numpy(episode.intrinsics[:length])
    seen = seen_by_start(torch.from_numpy(episode.depth[:length]).float(), c2w, lens)
    start = truth[:1].expand_as(truth)
    warped = warp_start(truth[0], c2w, lens).round().to(torch.uint8)
    latents = encode(model, truth)
    decoded = to_frames(model.tokenizer.decode(latents, None)[0])[0]
    systems = {"model": generated, "repeat": start, "warp": warped, "tokenizer": decoded, "truth": truth}
    rotation = {  # the baselines' rotation is known; that of the tokenizer's picture is not asked for
        "model": estimate_rotation(generated, lens[0]),
        "repeat": torch.zeros(length - 1, 3, dtype=torch.float64),
        "warp": commanded_rotation(c2w),
        "tokenizer": torch.full((length - 1, 3), torch.nan, dtype=torch.float64),
        "truth": estimate_rotation(truth, lens[0]),
    }
    return {
        name: score(frames, truth, seen, rotation[name], latents if name == "truth" else encode(model, frames))
        for name, frames in systems.items()
    }


def score(frames: Tensor, truth: Tensor, seen: Tensor, rotation: Tensor, latents: Tensor) -> Scores:
    """One system's frames (T, H, W, 3) uint8 against the truth; latents (1, C, n, Y, X) are its own."""
    pictures, true = frames.float(), truth.float()
    change = (pictures[1:] - pictures[:-1]).abs().mean((1, 2, 3))
    pictures, true, seen = pictures[1:], true[1:], seen[1:]
    enough = torch.where(seen.float().mean((1, 2)) >= MIN_SEEN, 0.0, torch.nan)
    return Scores(
        psnr=psnr(pictures, true),
        psnr_seen=psnr(pictures, true, seen) + enough,
        ssim=ssim(pictures, true),
        ssim_seen=ssim(pictures, true, seen) + enough,
        gradient=gradient_energy(pictures),
        change=change,
        rotation=rotation,
        latents=latent_features(latents),
    )


def latent_features(latents: Tensor) -> Tensor:
    """Means and deviations over cells (n, 2C) of the latents after the first, of (1, C, 1 + n, Y, X)."""
    cells = latents[0, :, 1:].flatten(2).float().cpu()  # (C, n, Y*X)
    return torch.cat([cells.mean(-1), cells.std(-1)]).T


def encode(model: WorldModel, frames: Tensor) -> Tensor:
    """Latents (1, C, n, Y, X) of frames (T, H, W, 3) uint8."""
    return model.tokenizer.encode(to_video(frames[None].to(model.device), model.dtype))


def commanded_rotation(c2w: Tensor) -> Tensor:
    """Rotation vectors (T - 1, 3) float64 between neighbouring poses (T, 4, 4), in radians."""
    rotation = c2w[:, :3, :3].double()
    return log_rotation(rotation[:-1].mT @ rotation[1:])


def tabulate(episodes: Sequence[Episode], scores: Sequence[dict[str, Scores]], *, fps: float, stride: int) -> list[Row]:
    """Rows for every kind of path in order of appearance, then for all episodes together."""
    kinds = list(dict.fromkeys(str(episode.meta["path"]) for episode in episodes))
    frames = len(scores[0]["truth"].psnr)
    rows = []
    for kind in [*kinds, ALL]:
        chosen = [i for i, episode in enumerate(episodes) if kind in (ALL, episode.meta["path"])]
        commanded = [commanded_rotation(torch.from_numpy(episodes[i].c2w[: frames + 1])) for i in chosen]
        for second in range(1, int(frames / fps) + 1):
            span = slice(round((second - 1) * fps), round(second * fps))
            latents = slice(-(-span.start // stride), span.stop // stride)
            for system in SYSTEMS:
                own, true = ([scores[i][name] for i in chosen] for name in (system, "truth"))
                rows.append(
                    Row(
                        kind=kind,
                        second=second,
                        system=system,
                        episodes=len(chosen),
                        **picture_figures(own, true, span),
                        **rotation_figures([s.rotation[span] for s in own], [c[span] for c in commanded], fps),
                        frechet=latent_distance(own, true, latents) if kind == ALL else float("nan"),
                    )
                )
    return rows


def picture_figures(own: list[Scores], true: list[Scores], span: slice) -> dict[str, float]:
    """Means over the frames of a second, of all episodes together."""
    names = ("psnr", "psnr_seen", "ssim", "ssim_seen", "change", "gradient")
    frames = {name: torch.cat([getattr(s, name)[span] for s in own]) for name in names}
    figures = {name: float(values.nanmean()) for name, values in frames.items()}
    figures["gradient"] /= max(float(torch.cat([s.gradient[span] for s in true]).mean()), 1e-9)
    return figures | {"left_out": int(frames["psnr_seen"].isnan().sum())}


def rotation_figures(own: list[Tensor], commanded: list[Tensor], fps: float) -> dict[str, float]:
    """Of rotations (n, 3) a frame, one tensor an episode, all of the same second."""
    recovered, asked = torch.cat(own), torch.cat(commanded)
    speed = float(asked.norm(dim=-1).mean().rad2deg() * fps)
    gain = float((recovered * asked).sum() / asked.square().sum().clamp_min(1e-12))
    angles = [log_rotation(compose(c).mT @ compose(r)).norm().rad2deg() for r, c in zip(own, commanded, strict=True)]
    return {
        "commanded": speed,
        "gain": gain if speed >= MIN_COMMANDED else float("nan"),
        "residual": float(torch.stack(angles).mean() * fps / len(commanded[0])),
        "motion": float(recovered.norm(dim=-1).mean().rad2deg() * fps),
    }


def compose(vectors: Tensor) -> Tensor:
    """The rotation (3, 3) that rotation vectors (n, 3) make one after another."""
    total = torch.eye(3, dtype=vectors.dtype)
    for rotation in exp_rotation(vectors):
        total = total @ rotation
    return total


def latent_distance(own: list[Scores], true: list[Scores], span: slice) -> float:
    """Fréchet distance of the latents of a second, of all episodes together; NaN if there are too few."""
    features, truth = (torch.cat([s.latents[span] for s in scores]) for scores in (own, true))
    return frechet_distance(features, truth) if len(features) > 1 else float("nan")
