"""How a world model holds out: true episodes there and back again, for minutes, measured in windows of ten seconds.

A camera that goes along an episode's path, back, and along it again stays among pictures whose truth is known, however
long it plays. So every window has the same truth beside it, and what changes from window to window is the model.

Shapes: B worlds, T frames of an episode, F frames of a window, H, W pixels, C latent channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from world_model.errors import InputError
from world_model.fidelity import begin, check_episodes, encode, latent_features
from world_model.image_metrics import frechet_distance, gradient_energy, psnr
from world_model.model import WorldModel
from world_model.train.data.episode import Episode

SECONDS = 10  # of a window
SETTLED = 1  # the window that the last one is compared with: by then the start frame is no longer all that is known
TOLERANCE = 0.2  # of the figures of that window


@dataclass(frozen=True, kw_only=True)
class Window:
    """Means over ten seconds of all worlds.

    until: where it ends, in seconds of play. psnr: dB to the truth. gradient: mean |dx| + |dy| as a share of the
    truth's. change: mean difference of neighbouring frames in 1/255. frechet: distance of latent statistics to the
    truth's.
    """

    until: int
    psnr: float
    gradient: float
    change: float
    frechet: float


@dataclass(frozen=True)
class Endurance:
    """The windows, and of each world the last frame of every window after its start frame, (n + 1, H, W, 3) uint8."""

    windows: tuple[Window, ...]
    frames: tuple[Tensor, ...]

    def drift(self, figure: str) -> float:
        """A figure of the last window over that of the second."""
        return getattr(self.windows[-1], figure) / max(getattr(self.windows[SETTLED], figure), 1e-9)

    @property
    def collapses(self) -> bool:
        """Whether the last window's gradient energy or Fréchet distance is off the second's by more than a fifth."""
        return any(abs(self.drift(figure) - 1) > TOLERANCE for figure in ("gradient", "frechet"))


@torch.no_grad()
def measure(
    model: WorldModel,
    episodes: Sequence[Episode],
    latents: int,
    *,
    progress: Callable[[int], None] = lambda steps: None,
) -> Endurance:
    """Play all episodes at once, there and back, for so many latents; what is left of a window is not played.

    World i's seed is i. progress is called with the number of steps done since the last call. Raises InputError for
    fewer than three windows, EpisodeError as world_model.fidelity does.
    """
    length, step = check_episodes(model, episodes), model.config.frames_per_step
    span = round(SECONDS * episodes[0].fps)
    count = latents * model.config.tokenizer.temporal_stride // span
    if span % step:
        raise InputError(f"episodes: expected a rate at which {SECONDS} s are whole steps of {step}, got {span} frames")
    if count <= SETTLED + 1:
        needed = (SETTLED + 2) * span // model.config.tokenizer.temporal_stride
        raise InputError(f"latents: expected at least {needed}, three windows of {SECONDS} s, got {latents}")
    truth = torch.from_numpy(np.stack([episode.frames[:length] for episode in episodes]))
    poses = torch.from_numpy(np.stack([episode.c2w[:length] for episode in episodes]))
    turns = there_and_back(length, count * span + 1)
    state, newest = begin(model, episodes, range(len(episodes)))
    windows, kept = [], [newest]
    for number in range(count):
        index = turns[number * span : (number + 1) * span + 1]
        video = [newest]
        for first in range(1, span + 1, step):
            state, frames = model.step(state, poses[:, index[first : first + step]], donate=True)
            video.append(frames)
            progress(1)
        made = torch.cat(video, 1)  # (B, 1 + F, H, W, 3), the last frame of the window before it first
        windows.append(_window(model, made, truth[:, index], (number + 1) * SECONDS))
        newest = made[:, -1:]
        kept.append(newest)
    return Endurance(tuple(windows), tuple(torch.cat(kept, 1)))


def there_and_back(length: int, frames: int) -> Tensor:
    """Indices (frames,) 0, 1, ... length - 1, length - 2, ... 0, 1, ...: neighbours all along."""
    place = torch.arange(frames) % (2 * (length - 1))
    return torch.minimum(place, 2 * (length - 1) - place)


def _window(model: WorldModel, made: Tensor, truth: Tensor, until: int) -> Window:
    """Figures of frames (B, 1 + F, H, W, 3) uint8; the first is not counted."""
    figures = {name: [] for name in ("psnr", "gradient", "true_gradient", "change", "own", "true")}
    for own, true in zip(made, truth, strict=True):
        pictures, expected = own.float(), true.float()
        figures["psnr"].append(psnr(pictures[1:], expected[1:]))
        figures["gradient"].append(gradient_energy(pictures[1:]))
        figures["true_gradient"].append(gradient_energy(expected[1:]))
        figures["change"].append(pictures.diff(dim=0).abs().mean((1, 2, 3)))
        figures["own"].append(latent_features(encode(model, own)))
        figures["true"].append(latent_features(encode(model, true)))
    of = {name: torch.cat(values) for name, values in figures.items()}
    return Window(
        until=until,
        psnr=float(of["psnr"].mean()),
        gradient=float(of["gradient"].mean() / of["true_gradient"].mean().clamp_min(1e-9)),
        change=float(of["change"].mean()),
        frechet=frechet_distance(of["own"], of["true"]),
    )


def to_markdown(result: Endurance) -> str:
    """The verdict, then a line for every window."""
    verdict, within = "FAIL" if result.collapses else "pass", f"{TOLERANCE:.0%}"
    drifts = ", ".join(f"{name} x{result.drift(name):.2f}" for name in ("gradient", "frechet"))
    lines = [
        f"- {verdict}: the last {SECONDS} s lie within {within} of the second {SECONDS} s ({drifts})",
        "",
        "| until, s | PSNR, dB | gradient energy | change, 1/255 | Fréchet |",
        "|---:|---:|---:|---:|---:|",
    ]
    for w in result.windows:
        lines.append(f"| {w.until} | {w.psnr:.2f} | {w.gradient:.2f} | {w.change:.2f} | {w.frechet:.2f} |")
    return "\n".join(lines) + "\n"
