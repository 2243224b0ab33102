"""Measure a world model against true episodes that it has never seen. Prints a table, writes it with pictures.

    sanawm fidelity --model nano --out fidelity

For each kind of path (yaw, pitch, forward, strafe, still, random) and each second: PSNR, SSIM, sharpness, recovered
against commanded rotation, distance of latent statistics; beside the repeated and the warped first frame.
"""

import dataclasses
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from world_model.errors import InputError

STANDARD = 36  # held-out episodes: six of each kind
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FidelityConfig:
    """Options of `sanawm fidelity`.

    model: a shipped model's name, or a folder. episodes: a folder of test episodes with depth; the standard held-out
    set is rendered there if it does not exist (needs the extra "bullet"). limit: only so many of them, 0 for all.
    batch: worlds at once. steps: model times of a chunk instead of the model's own, such as "1000,750,0". refine: with
    the model's refiner; refiner_steps: likewise instead of the refiner's own.
    """

    model: str = "nano"
    episodes: Path = Path("episodes/test")
    out: Path = Path("fidelity")
    steps: str = ""
    refine: bool = False
    refiner_steps: str = ""
    batch: int = 6
    limit: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.batch < 1 or self.limit < 0:
            raise InputError(f"expected batch >= 1 and limit >= 0, got {self.batch} and {self.limit}")
        if self.refiner_steps and not self.refine:
            raise InputError(f"refiner_steps: expected none without refine, got {self.refiner_steps!r}")
        for name in ("steps", "refiner_steps"):
            self.times(name)

    def times(self, name: str) -> tuple[int, ...] | None:
        """The step list in a field, or None for the model's own."""
        given = getattr(self, name)
        try:
            return tuple(int(part) for part in given.split(",")) if given else None
        except ValueError as error:
            raise InputError(f"{name}: expected integers between commas, got {given!r}") from error


def main() -> int:
    """The command `sanawm fidelity`."""
    import tyro

    run(tyro.cli(FidelityConfig, prog="sanawm fidelity", description=__doc__))
    return 0


def run(config: FidelityConfig) -> None:
    """Measure, print, write fidelity.json, fidelity.md and one contact sheet a kind of path."""
    from tqdm import tqdm

    from world_model.fidelity import measure
    from world_model.fidelity_report import comparison, to_json, to_markdown
    from world_model.model import WorldModel
    from world_model.pictures import png
    from world_model.train.data.episode import list_episodes, read_episode

    model = WorldModel.from_pretrained(config.model, device=config.device, refine=config.refine)
    refiner, times = model.refiner, config.times("refiner_steps")
    if refiner is not None and times:
        refiner = dataclasses.replace(refiner, config=dataclasses.replace(refiner.config, steps=times))
    changed = dataclasses.replace(model.config, steps=config.times("steps") or model.config.steps)
    model = WorldModel(changed, model.transformer, model.tokenizer, model.text, refiner)
    folders = list_episodes(held_out(config.episodes))
    folders = folders[: config.limit or None]
    episodes = [read_episode(folder) for folder in tqdm(folders, desc="reading", unit="episode")]
    began = time.perf_counter()
    with tqdm(total=len(episodes), desc="fidelity", unit="episode") as bar:
        result = measure(model, episodes, batch=config.batch, progress=bar.update)
    about = {
        "model": model.fingerprint,
        "steps": model.config.steps,
        "refiner_steps": refiner.config.steps if refiner is not None else None,
        "episodes": len(episodes),
        "scenes": [episode.meta.get("scene_seed") for episode in episodes],
        "device": config.device,
        "took_s": round(time.perf_counter() - began, 1),
    }
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "fidelity.json").write_text(to_json(result.rows, about) + "\n", encoding="utf-8")
    (config.out / "fidelity.md").write_text(to_markdown(result.rows), encoding="utf-8")
    every = round(episodes[0].fps / 2)
    for kind in dict.fromkeys(episode.meta["path"] for episode in episodes):
        chosen = [i for i, episode in enumerate(episodes) if episode.meta["path"] == kind]
        sheet = comparison([episodes[i] for i in chosen], [result.generated[i] for i in chosen], every)
        (config.out / f"{kind}.png").write_bytes(png(sheet))
    print(to_markdown(result.rows))
    print(f"written to {config.out.resolve()}")


def held_out(folder: Path) -> Path:
    """The folder, with the standard set rendered into it if it is not there."""
    if folder.exists():
        return folder
    if folder.name != "test":
        raise InputError(f"episodes: expected an existing folder, or a new one named 'test', got {folder}")
    from sanawm_env.data import generate

    _log.info("%s does not exist: rendering %d held-out episodes there", folder, STANDARD)
    print(f"{folder} does not exist: rendering {STANDARD} held-out episodes there")
    generate(folder.parent, "test", STANDARD)
    return folder
