"""`sanawm endurance`, on an untrained model."""

import json
from pathlib import Path

import pytest
import torch

from sanawm_env.endurance import EnduranceConfig, run
from tests.world_model.box_room import episode, small_nano
from world_model.checkpoint import build_parts, save_folder
from world_model.errors import InputError
from world_model.train.data.episode import write_episode

SIZE = 64


def test_it_writes_a_table_and_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_nano(SIZE)
    torch.manual_seed(0)
    save_folder(tmp_path / "model", config, build_parts(config), torch.float32)
    for number in range(2):
        write_episode(tmp_path / "set" / f"{number:06d}", episode("yaw", [0, 0, 0, 0, 30, 0], frames=17, size=SIZE))
    out = tmp_path / "out"
    run(EnduranceConfig(model=str(tmp_path / "model"), episodes=tmp_path / "set", out=out, latents=120, limit=1))
    about = json.loads((out / "endurance.json").read_text())
    assert about["episodes"] == 1
    assert [window["until"] for window in about["windows"]] == [10, 20, 30]
    assert (out / "endurance.md").read_text() in capsys.readouterr().out
    assert (out / "endurance.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_play_is_refused() -> None:
    with pytest.raises(InputError, match="expected latents >= 1 and limit >= 0, got 0 and 12"):
        EnduranceConfig(latents=0)
