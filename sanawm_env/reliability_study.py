"""Measure how well each sign of doubt follows the true error, in rooms whose true frames are known.

    python -m sanawm_env.reliability_study --episodes episodes/test --out reliability

Every episode's path is flown in the world model; after each step the error is -PSNR of its last frame to the truth.
Prints and writes Spearman correlations (OUT.md) and a plot of error over reliability (OUT.svg).
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sanawm_env.fidelity import held_out
from sanawm_env.reliability import OTHER_NOISE, UNRELATED
from world_model.errors import EpisodeError, require
from world_model.fidelity import check_episodes
from world_model.image_metrics import gradient_energy, psnr
from world_model.model import WorldModel
from world_model.train.data.episode import Episode, list_episodes, read_episode

SHIPPED = "change, summed", "seeds, summed"
SIDE, MARGIN = 320, 48  # pixels of the plot


@dataclass(frozen=True, kw_only=True)
class Study:
    """Options. episodes: a folder of held-out episodes; the standard set is rendered into one that does not exist."""

    model: str = "nano"
    episodes: Path = Path("episodes/test")
    batch: int = 6
    limit: int = 0
    out: Path = Path("reliability")

    def __post_init__(self) -> None:
        require(self.batch > 0 and self.limit >= 0, f"batch, limit: expected > 0, >= 0, got {self.batch}, {self.limit}")


@torch.no_grad()
def signs(model: WorldModel, episodes: Sequence[Episode], length: int, first: int) -> dict[str, Tensor]:
    """What each sign says after every step, (E, T) each, and the error under the name "error"."""
    step = model.config.frames_per_step
    path = torch.from_numpy(np.stack([episode.c2w[:length] for episode in episodes])).float()
    truth = torch.from_numpy(np.stack([episode.frames[:length] for episode in episodes])).float()
    lenses = np.stack([episode.intrinsics[0] for episode in episodes])
    seeds = range(first, first + len(episodes))
    state, _ = model.reset([episode.frames[0] for episode in episodes], [e.caption for e in episodes], lenses, seeds)
    latent = state.start[:, :, 0]
    start, sharp = statistics(latent), gradient_energy(truth[:, 0])
    factor, modulus = OTHER_NOISE
    rows: dict[str, list[Tensor]] = {}
    for at in range(1, length, step):
        poses, before = path[:, at : at + step], latent
        _, other = model.step_latent(state.reseeded((state.seed % modulus * factor + 1) % modulus), poses)
        after, chunk = model.step_latent(state, poses)
        state, frames = model.decode(after, chunk)
        latent, seen = chunk.values[:, :, -1], frames[:, -1].float()
        turned = (poses[:, -1, 0, 0] + poses[:, -1, 1, 1] + poses[:, -1, 2, 2] - 1) / 2
        now = {
            "change": (latent - before).square().mean((1, 2, 3)) / UNRELATED,
            "seeds": (latent - other.values[:, :, -1]).square().mean((1, 2, 3)) / UNRELATED,
            "latent statistics, from the start's": (statistics(latent) - start).square().mean(1),
            "latent statistics, from unit variance": statistics(latent).square().mean(1),
            "sharpness lost since the start": -gradient_energy(seen) / sharp,
            "angle from the start": turned.clamp(-1, 1).acos(),
            "time": torch.full((len(seen),), float(at)),
            "error": -psnr(seen, truth[:, at + step - 1]),
        }
        for name, value in now.items():
            rows.setdefault(name, []).append(value)
    table = {name: torch.stack(values, 1) for name, values in rows.items()}
    return table | {f"{name}, summed": table[name].cumsum(1) for name in ("change", "seeds")}


def statistics(latent: Tensor) -> Tensor:
    """Mean and log deviation over cells of each channel: (B, C, Y, X) -> (B, 2C)."""
    cells = latent.flatten(2)
    return torch.cat([cells.mean(2), cells.std(2).clamp_min(1e-3).log()], 1)


def spearman(one: Tensor, other: Tensor) -> float:
    """Rank correlation of two vectors; NaN if one of them is constant, or has less than two numbers."""
    if len(one) < 2:
        return float("nan")
    ranks = torch.stack([ranked(one), ranked(other)])
    return float(torch.corrcoef(ranks)[0, 1])


def ranked(values: Tensor) -> Tensor:
    """Ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0).double() - (counts.double() + 1) / 2)[inverse]


def markdown(table: dict[str, Tensor], kinds: Sequence[str]) -> str:
    """Correlations with the error: over all steps, and the mean over those among worlds at the same step."""
    moving = torch.tensor([kind != "still" for kind in kinds])
    error = table["error"]
    lines = ["| sign of doubt | all steps | same step | same step, moving |", "|---|---:|---:|---:|"]
    for name, values in table.items():
        if name != "error":
            same = [spearman(values[:, t], error[:, t]) for t in range(values.shape[1])]
            some = [spearman(values[moving, t], error[moving, t]) for t in range(values.shape[1])]
            figures = spearman(values.flatten(), error.flatten()), float(np.mean(same)), float(np.mean(some))
            shown = " | ".join("–" if np.isnan(f) else f"{f:.2f}" for f in figures)
            lines.append(f"| {'**' + name + '**' if name in SHIPPED else name} | {shown} |")
    lines += ["", "| reliability by change | steps | mean PSNR, dB |", "|---|---:|---:|"]
    trust = 1 / (1 + table["change, summed"])
    for low, high in ((0.9, 1.0), (0.7, 0.9), (0.5, 0.7), (0.3, 0.5), (0.2, 0.3), (0.0, 0.2)):
        inside = (trust > low) & (trust <= high)
        mean = f"{-float(error[inside].mean()):.1f}" if inside.any() else "–"
        lines.append(f"| {low:g} to {high:g} | {int(inside.sum())} | {mean} |")
    return "\n".join(lines) + "\n"


def plot(table: dict[str, Tensor]) -> str:
    """SVG: a dot a step, its reliability by change across and its PSNR up, later steps darker."""
    trust, score = 1 / (1 + table["change, summed"]), -table["error"]
    low, high = float(score.min()), float(score.max())
    size, last = SIDE + 2 * MARGIN, trust.shape[1]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" font-family="sans-serif" '
        f'font-size="12" text-anchor="middle"><rect width="{size}" height="{size}" fill="white"/>',
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIDE}" height="{SIDE}" fill="none" stroke="black"/>',
        f'<text x="{size / 2}" y="{MARGIN - 14}">PSNR to the truth, dB (light: early, dark: late)</text>',
        f'<text x="{size / 2}" y="{size - 8}">reliability, by change</text>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<text x="{MARGIN + tick * SIDE}" y="{MARGIN + SIDE + 17}">{tick:g}</text>')
        value = low + tick * (high - low)
        parts.append(f'<text x="{MARGIN - 20}" y="{MARGIN + (1 - tick) * SIDE + 4}">{value:.0f}</text>')
    for t in range(last):
        for x, y in zip(trust[:, t].tolist(), score[:, t].tolist(), strict=True):
            place = f'cx="{MARGIN + x * SIDE:.1f}" cy="{MARGIN + SIDE * (high - y) / max(high - low, 1e-9):.1f}"'
            parts.append(f'<circle {place} r="2.5" fill="hsl(215,70%,{78 - 55 * t / last:.0f}%)"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """The program `python -m sanawm_env.reliability_study`."""
    import tyro
    from tqdm import tqdm

    study = tyro.cli(Study, prog="python -m sanawm_env.reliability_study", description=__doc__)
    model = WorldModel.from_pretrained(study.model)
    episodes = [read_episode(folder) for folder in list_episodes(held_out(study.episodes))[: study.limit or None]]
    if not episodes:
        raise EpisodeError(f"{study.episodes}: expected episodes, got none")
    length = check_episodes(model, episodes)
    groups = range(0, len(episodes), study.batch)
    parts = [signs(model, episodes[i : i + study.batch], length, i) for i in tqdm(groups, desc="flying")]
    table = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    command = shlex.join(["python", "-m", "sanawm_env.reliability_study", *sys.argv[1:]])
    text = f"`{command}`: {len(episodes)} episodes of {model.fingerprint}\n\n" + markdown(
        table, [episode.meta["path"] for episode in episodes]
    )
    print(text)
    study.out.with_suffix(".md").write_text(text, encoding="utf-8")
    study.out.with_suffix(".svg").write_text(plot(table), encoding="utf-8")


if __name__ == "__main__":
    main()
