"""The study of reliability: ranks, its table, and that what it calls change is what the environment tells."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sanawm_env import reliability_study
from sanawm_env.env import SanaWMEnv
from sanawm_env.reliability_study import markdown, ranked, signs, spearman
from sanawm_env.starts import read_starts
from world_model.model import WorldModel
from world_model.train.data.episode import Episode, read_episode, write_episode


def test_ranks_and_their_correlation() -> None:
    assert ranked(torch.tensor([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0, 2.5, 1]
    x = torch.arange(9.0)
    assert spearman(x, x.exp()) == pytest.approx(1)
    assert spearman(x, -x.square()) == pytest.approx(-1)
    # scipy.stats.spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) as its documentation gives it
    assert spearman(torch.arange(5.0), torch.tensor([5.0, 6, 7, 8, 7])) == pytest.approx(0.8207826816681233)
    assert np.isnan(spearman(x, torch.zeros(9)))


def test_the_table_tells_correlations_and_means() -> None:
    error = -torch.tensor([[30.0, 20.0], [28.0, 10.0], [26.0, 15.0]])
    change = torch.tensor([[0.05, 1.5], [0.06, 9.0], [0.07, 4.0]])
    text = markdown({"change, summed": change, "time": torch.ones(3, 2), "error": error}, ["yaw", "still", "yaw"])
    assert "| **change, summed** | 1.00 | 1.00 | 1.00 |" in text
    assert "| time | – | – | – |" in text
    assert "| 0.9 to 1 | 3 | 28.0 |" in text
    assert "| 0 to 0.2 | 2 | 12.5 |" in text  # 4.0 of doubt: exactly 0.2
    assert "| 0.5 to 0.7 | 0 | – |" in text


def test_its_signs_are_what_the_environment_tells(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = read_starts(model_folder / "starts")[0]
    assert start.intrinsics is not None
    path = np.tile(np.eye(4, dtype=np.float32), (17, 1, 1))
    path[:, 2, 3] = 0.05 * np.arange(17)
    for number, kind in enumerate(("forward", "still")):
        flight = Episode(
            frames=np.stack([start.image] * 17),
            c2w=path,
            intrinsics=np.stack([start.intrinsics] * 17),
            caption=start.prompt,
            fps=16.0,
            depth=np.ones((17, 64, 64), np.float16),
            meta={"path": kind},
        )
        write_episode(tmp_path / "set" / f"{number:06d}", flight)
    flight = read_episode(tmp_path / "set" / "000000")
    table = signs(WorldModel.from_pretrained(model_folder), [flight], 17, first=3)
    for measure in ("change", "seeds"):
        env = SanaWMEnv(model=model_folder, task="none", reliability=measure)
        env.reset(seed=0, options={"image": flight.frames[0], "prompt": start.prompt, "intrinsics": start.intrinsics})
        begun = env.get_state()
        env.set_state(begun.fork(1, seeds=[3]))
        told = [env.step_to(path[at : at + 4])[-1]["reliability"] for at in range(1, 17, 4)]
        np.testing.assert_allclose(1 / (1 + table[f"{measure}, summed"][0]), told, rtol=1e-4)
    monkeypatch.setattr(
        sys, "argv", ["", "--model", str(model_folder), "--episodes", f"{tmp_path}/set", "--out", f"{tmp_path}/out"]
    )
    reliability_study.main()
    assert "2 episodes" in (tmp_path / "out.md").read_text()
    assert (tmp_path / "out.svg").read_text().count("<circle") == 2 * 4
