"""Play a world model for minutes and measure whether it collapses. Prints a table, writes it with pictures.

    sanawm endurance --model nano --latents 240 --out endurance

Held-out episodes are played there and back again, so that the truth is known for as long as one likes. Every ten
seconds: PSNR, gradient energy and Fréchet distance to the truth.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sanawm_env.fidelity import held_out
from world_model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class EnduranceConfig:
    """Options of `sanawm endurance`.

    model: a shipped model's name, or a folder. episodes: as of `sanawm fidelity`. latents: to play, four frames each
    with nano: 240 are a minute. limit: only so many episodes, 0 for all; each is one of the worlds that play at once.
    """

    model: str = "nano"
    episodes: Path = Path("episodes/test")
    out: Path = Path("endurance")
    latents: int = 240
    limit: int = 12
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.latents < 1 or self.limit < 0:
            raise InputError(f"expected latents >= 1 and limit >= 0, got {self.latents} and {self.limit}")


def main() -> int:
    """The command `sanawm endurance`."""
    import tyro

    run(tyro.cli(EnduranceConfig, prog="sanawm endurance", description=__doc__))
    return 0


def run(config: EnduranceConfig) -> None:
    """Measure, print, write endurance.json, endurance.md and endurance.png, a row of frames for every world."""
    from tqdm import tqdm

    from world_model.endurance import measure, to_markdown
    from world_model.model import WorldModel
    from world_model.pictures import contact_sheet, png
    from world_model.train.data.episode import list_episodes, read_episode

    model = WorldModel.from_pretrained(config.model, device=config.device)
    folders = list_episodes(held_out(config.episodes))[: config.limit or None]
    episodes = [read_episode(folder) for folder in folders]
    began = time.perf_counter()
    with tqdm(total=config.latents // model.config.block, desc="endurance", unit="step") as bar:
        result = measure(model, episodes, config.latents, progress=bar.update)
    about = {
        "model": model.fingerprint,
        "episodes": len(episodes),
        "latents": config.latents,
        "device": config.device,
        "took_s": round(time.perf_counter() - began, 1),
        "gradient_drift": result.drift("gradient"),
        "frechet_drift": result.drift("frechet"),
        "collapses": result.collapses,
        "windows": [asdict(window) for window in result.windows],
    }
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "endurance.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    table = to_markdown(result)
    (config.out / "endurance.md").write_text(table, encoding="utf-8")
    every = max(1, len(result.windows) // 8)  # eight frames and the start are what a screen shows
    sheet = contact_sheet([[frame.numpy() for frame in frames[::every]] for frames in result.frames])
    (config.out / "endurance.png").write_bytes(png(sheet))
    print(table)
    print(f"written to {config.out.resolve()}")
