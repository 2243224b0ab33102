"""The fidelity table for people: Markdown, JSON, contact sheets."""

import dataclasses
import json
import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from world_model.fidelity import ALL, Row
from world_model.fidelity_verdicts import Verdict, targets, verdicts
from world_model.pictures import contact_sheet
from world_model.train.data.episode import Episode

TABLES = (  # title; figure, its name, digits, and the systems of which it says something
    (
        "PSNR in dB, over all pixels and over those that the start frame saw",
        (
            ("psnr", "all", 2, ("model", "repeat", "warp", "tokenizer")),
            ("psnr_seen", "seen", 2, ("model", "repeat", "warp", "tokenizer")),
        ),
    ),
    (
        "SSIM, over all pixels and over those that the start frame saw",
        (
            ("ssim", "all", 3, ("model", "repeat", "warp", "tokenizer")),
            ("ssim_seen", "seen", 3, ("model", "repeat", "warp", "tokenizer")),
        ),
    ),
    (
        "Gradient energy as a share of the truth's; rotation, the truth's column being the estimate's own error",
        (
            ("gradient", "gradient", 2, ("model", "repeat", "warp", "tokenizer")),
            ("commanded", "asked, deg/s", 1, ("truth",)),
            ("gain", "gain", 3, ("model", "repeat", "warp", "truth")),
            ("residual", "residual, deg/s", 2, ("model", "repeat", "warp", "truth")),
            ("motion", "motion, deg/s", 2, ("model", "truth")),
        ),
    ),
    (
        "Mean change between neighbouring frames in 1/255; Fréchet distance of latents, all paths together",
        (
            ("change", "change", 2, ("model", "warp", "tokenizer", "truth")),
            ("frechet", "Fréchet", 3, ("model", "repeat", "warp", "tokenizer")),
        ),
    ),
)


def to_markdown(rows: Sequence[Row]) -> str:
    """Verdicts, targets, then a table for each of TABLES: a line for each kind of path and second."""
    at = {(row.kind, row.second, row.system): row for row in rows}
    parts = [verdicts_to_markdown(verdicts(rows)), "Targets:\n\n" + verdicts_to_markdown(targets(rows))]
    for title, figures in TABLES:
        columns = [(name, label, digits, s) for name, label, digits, systems in figures for s in systems]
        titles = ["path", "second", *(f"{label}: {system}" for _, label, _, system in columns)]
        lines = [f"**{title}**", "", "| " + " | ".join(titles) + " |"]
        lines.append("|---|---|" + "---:|" * len(columns))
        for kind, second in dict.fromkeys((row.kind, row.second) for row in rows):
            cells = [_cell(getattr(at[kind, second, s], name), digits) for name, _, digits, s in columns]
            lines.append("| " + " | ".join([kind, str(second), *cells]) + " |")
        parts.append("\n".join(lines))
    left_out = sum(row.left_out for row in rows if row.system == "model" and row.kind == ALL)
    parts.append(f"Frames of which the start saw too little for the figures over seen pixels: {left_out}.")
    return "\n\n".join(parts) + "\n"


def verdicts_to_markdown(found: Sequence[Verdict]) -> str:
    return "\n".join(f"- {'pass' if v.passed else 'FAIL'}: {v.name} ({v.figures})" for v in found)


def _cell(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def to_json(rows: Sequence[Row], about: dict[str, object]) -> str:
    """`about` (what was measured, on what), rows, verdicts, targets; what does not apply is null."""
    table = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in dataclasses.asdict(row).items()}
        for row in rows
    ]
    judged = {
        name: [dataclasses.asdict(verdict) for verdict in found]
        for name, found in (("verdicts", verdicts(rows)), ("targets", targets(rows)))
    }
    return json.dumps(about | judged | {"rows": table}, indent=1)


def comparison(episodes: Sequence[Episode], generated: Sequence[Tensor], every: int) -> np.ndarray:
    """One picture (H', W', 3) uint8: an episode's true frames above the generated ones, one in `every` of them."""
    pairs = zip(episodes, generated, strict=True)
    return contact_sheet([view[::every] for episode, frames in pairs for view in (episode.frames, frames.numpy())])
