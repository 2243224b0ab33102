"""Learners that the ordinary tests do without, each where it is installed: `make test-matrix`."""

import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sanawm_env.evaluate.policies import load_policy
from sanawm_env.learners.episodes import Recorded
from sanawm_env.learners.lerobot_export import IMAGE, export_lerobot
from world_model.train.data.video import decode_video

EXAMPLES = Path(__file__).parents[3] / "examples" / "learners"


def needs(package: str, session: str) -> pytest.MarkDecorator:
    """Skip where `package` is not installed. One that is installed and does not import fails its session."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"nox -s {session}")


def run(name: str, *arguments: str) -> str:
    """What an example prints, as the program that it is."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs("torchrl", "torchrl")
def test_torchrl_trains(model_folder: Path) -> None:
    arguments = "--worlds", "2", "--steps", "16", "--horizon", "4"
    assert run("torchrl_ppo", "--model", str(model_folder), *arguments).count("reward a step") == 2


@needs("ray", "rllib")
def test_rllib_trains(model_folder: Path) -> None:
    printed = run("rllib_ppo", "--model", str(model_folder), "--iterations", "1", "--steps", "40")
    assert "iteration 0: 40 steps, return" in printed


@needs("lerobot", "lerobot")
def test_lerobot_reads_the_dataset(
    episodes: tuple[Recorded, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    export_lerobot(episodes, tmp_path / "reach", fps=4, task="reach")
    dataset = LeRobotDataset("sanawm/reach", root=tmp_path / "reach")
    assert (len(dataset), dataset.meta.total_episodes, dataset.meta.fps) == (6, 2, 4)
    assert dataset.meta.tasks.index.tolist() == ["reach the red ball"]
    assert dataset.meta.video_keys == [IMAGE]
    row = dataset.hf_dataset[4]
    np.testing.assert_array_equal(row["action"].numpy(), episodes[1].actions[1])
    np.testing.assert_allclose(row["observation.pose"].numpy(), episodes[1].poses[1], atol=1e-6)
    assert np.shape(dataset.meta.stats[IMAGE]["mean"]) == (3, 1, 1)
    ours = decode_video(next((tmp_path / "reach/videos").rglob("*.mp4")), decoder="av")
    for i, picture in enumerate(ours):
        theirs = dataset[i][IMAGE].numpy().transpose(1, 2, 0) * 255  # decoded by LeRobot itself
        assert np.abs(theirs - picture).mean() < 2
    assert np.abs(ours[3].astype(float) - episodes[1].observations[0]["pixels"]).mean() < 6


@needs("lerobot", "lerobot")
def test_lerobots_evaluation_plays(model_folder: Path) -> None:
    import torch
    from lerobot.scripts.lerobot_eval import rollout

    from sanawm_env.learners.lerobot_env import make_env

    class Ahead(torch.nn.Module):
        def reset(self) -> None: ...

        def select_action(self, batch: dict) -> torch.Tensor:
            assert batch["task"] == ["reach the red ball"] * 2
            assert batch["observation.image"].shape == (2, 3, 64, 64)
            return torch.tensor([[0, 0, 1.0, 0, 0, 0]]).expand(2, 6)

    worlds = make_env(n_envs=2, model=str(model_folder))
    as_it_is = [lambda value: value] * 4
    played = rollout(worlds, Ahead(), *as_it_is, seeds=[0, 1])
    assert played["success"].any(dim=1).all()  # the goals lie three metres ahead
    assert played["reward"].shape[0] == 2


def test_our_ppo_runs(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--model", str(model_folder), "--worlds", "2", "--steps", "8", "--horizon", "4"]
    monkeypatch.setattr(sys, "argv", ["ppo", *arguments, "--out", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "ppo.py"), run_name="__main__")
    assert (tmp_path / "curve.csv").read_text().startswith("steps")
    action = load_policy(str(tmp_path / "policy.pt")).begin(seed=0)(np.zeros((64, 64, 3), np.uint8))
    assert action.shape == (6,)


def test_datasets_are_exported(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari", reason="extra minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    arguments = "--steps", "2", "--minari", "sanawm/two-v0", "--out", str(tmp_path / "two")
    printed = run("export_datasets", "--model", str(model_folder), *arguments)
    assert "4 steps in 2 episodes" in printed
    assert "Minari: sanawm/two-v0, 4 steps" in printed
