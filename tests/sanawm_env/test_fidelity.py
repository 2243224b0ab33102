"""`sanawm fidelity`, on an untrained model and two short episodes."""

import json
from pathlib import Path

import pytest
import torch

from sanawm_env import fidelity
from sanawm_env.fidelity import FidelityConfig, held_out, run
from tests.world_model.box_room import episode, small_nano
from world_model.checkpoint import build_parts, load_config, save_folder
from world_model.errors import InputError
from world_model.refiner import Refiner, refiner_config, save_refiner
from world_model.train.data.episode import write_episode
from world_model.transformer import SanaWM

SIZE = 64


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = small_nano(SIZE, depth=2)
    torch.manual_seed(0)
    save_folder(tmp_path / "model", config, build_parts(config), torch.float32)
    return tmp_path / "model"


def test_it_writes_tables_and_a_sheet_for_every_path(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (kind, twist) in enumerate({"yaw": [0, 0, 0, 0, 30, 0], "still": [0] * 6}.items()):
        write_episode(tmp_path / "set" / f"{number:06d}", episode(kind, twist, frames=17, size=SIZE))
    run(FidelityConfig(model=str(checkpoint), episodes=tmp_path / "set", out=tmp_path / "out", steps="1000,0"))
    about = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    assert about["steps"] == [1000, 0]
    assert {row["kind"] for row in about["rows"]} == {"yaw", "still", "all"}
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"yaw.png", "still.png"}
    table = (tmp_path / "out" / "fidelity.md").read_text()
    assert table in capsys.readouterr().out
    assert "| yaw | 1 |" in table


def test_a_model_is_measured_with_its_refiner(checkpoint: Path, tmp_path: Path) -> None:
    write_episode(tmp_path / "set" / "000000", episode("yaw", [0, 0, 0, 0, 30, 0], frames=17, size=SIZE))
    config = refiner_config(load_config(checkpoint), (600, 0))
    torch.manual_seed(1)
    save_refiner(checkpoint, Refiner(config, SanaWM(config.transformer)), torch.float32)
    given = {"model": str(checkpoint), "episodes": tmp_path / "set"}
    run(FidelityConfig(**given, out=tmp_path / "plain"))
    run(FidelityConfig(**given, out=tmp_path / "refined", refine=True, refiner_steps="600,300,0"))
    plain, refined = (json.loads((tmp_path / o / "fidelity.json").read_text()) for o in ("plain", "refined"))
    assert (plain["refiner_steps"], refined["refiner_steps"]) == (None, [600, 300, 0])
    psnr = [next(r["psnr"] for r in t["rows"] if r["system"] == "model") for t in (plain, refined)]
    assert psnr[0] != psnr[1]


def test_a_set_that_is_not_there_is_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("sanawm_env.data.generate", lambda *given: asked.append(given))
    assert held_out(tmp_path / "test") == tmp_path / "test"
    assert asked == [(tmp_path, "test", fidelity.STANDARD)]
    (tmp_path / "mine").mkdir()
    assert held_out(tmp_path / "mine") == tmp_path / "mine"
    with pytest.raises(InputError, match="a new one named 'test'"):
        held_out(tmp_path / "elsewhere")


def test_options_are_checked() -> None:
    assert FidelityConfig().times("steps") is None
    assert FidelityConfig(steps="1000,750,0").times("steps") == (1000, 750, 0)
    assert FidelityConfig(refine=True, refiner_steps="500,0").times("refiner_steps") == (500, 0)
    with pytest.raises(InputError, match="none without refine, got '500,0'"):
        FidelityConfig(refiner_steps="500,0")
    with pytest.raises(InputError, match="integers between commas, got '1000;0'"):
        FidelityConfig(steps="1000;0")
    with pytest.raises(InputError, match="batch >= 1"):
        FidelityConfig(batch=0)
