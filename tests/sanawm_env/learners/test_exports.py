"""Episodes in memory, and what is read back of them: from Minari exactly, from LeRobot's layout as video allows."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from sanawm_env.learners.episodes import Recorded, record_episodes
from sanawm_env.learners.instruction import instruction
from sanawm_env.learners.lerobot_export import IMAGE, export_lerobot
from sanawm_env.learners.minari_export import export_minari
from world_model.errors import BackendError, InputError
from world_model.train.data.source import open_entries

pytest.importorskip("pyarrow", reason="extras lerobot, minari")


def test_an_episode_is_recorded_as_it_was_played(dict_env: gym.Env, episodes: tuple[Recorded, ...]) -> None:
    second = episodes[1]
    assert (len(second.observations), len(second.actions), second.seed) == (4, 3, 6)
    observation, info = dict_env.reset(seed=6)
    np.testing.assert_array_equal(second.observations[0]["pixels"], observation["pixels"])
    assert (second.scene, second.world_seed) == (info["scene"], info["world_seed"])
    for action, seen, reward in zip(second.actions, second.observations[1:], second.rewards, strict=True):
        observation, again, _, _, info = dict_env.step(action)
        assert again == reward
        np.testing.assert_array_equal(seen["agent_pos"], observation["agent_pos"])
    np.testing.assert_array_equal(second.poses[-1], info["pose"])
    assert second.truncated.tolist() == [False, False, True]
    assert not second.terminated.any()
    with pytest.raises(InputError, match="count: expected at least 1 episode, got 0"):
        record_episodes(dict_env, lambda observation: None, count=0)


def test_minari_gives_back_every_bit(
    dict_env: gym.Env, episodes: tuple[Recorded, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari", reason="extra minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    export_minari(episodes, dict_env, "sanawm/reach-v0", "random", "two short episodes")
    dataset = minari.load_dataset("sanawm/reach-v0")
    assert dataset.total_episodes == 2
    assert dataset.env_spec.id == "SanaWM-v0"
    for episode, read in zip(episodes, dataset.iterate_episodes(), strict=True):
        for key, values in read.observations.items():
            expected = np.stack([seen[key] for seen in episode.observations])
            assert values.dtype == expected.dtype
            np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(read.actions, np.stack(episode.actions))
        np.testing.assert_array_equal(read.rewards, episode.rewards)
        np.testing.assert_array_equal(read.truncations, episode.truncated)
        np.testing.assert_array_equal(read.terminations, episode.terminated)
        np.testing.assert_array_equal(read.infos["pose"], episode.poses)
        np.testing.assert_array_equal(read.infos["is_success"], episode.success)


def test_an_absent_package_is_named_with_its_extra(
    dict_env: gym.Env, episodes: tuple[Recorded, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(BackendError, match=r"sanawm-env\[minari\]"):
        export_minari(episodes, dict_env, "sanawm/reach-v0", "random", "")


def test_our_own_reader_reads_the_lerobot_dataset(episodes: tuple[Recorded, ...], tmp_path: Path) -> None:
    export_lerobot(episodes, tmp_path / "reach", fps=4, task="reach")
    description = {"format": "lerobot", "path": "reach", "fps": 4, "video": IMAGE, "pose": "observation.pose"}
    (tmp_path / "reach.json").write_text(json.dumps(description | {"intrinsics": "observation.intrinsics"}))
    entries = open_entries((str(tmp_path / "reach.json"),), (64, 64))
    assert len(entries) == 2
    for episode, entry in zip(episodes, entries, strict=True):
        read = entry.read()
        pixels = np.stack([seen["pixels"] for seen in episode.observations[:-1]])
        light = np.array([0.299, 0.587, 0.114])
        assert np.abs((read.frames - pixels.astype(float)) @ light).mean() < 4  # colours are at half the resolution
        assert np.abs(read.frames[0].astype(int) - pixels[0]).mean() < 6  # and smooth in the start pictures
        # paths begin at the first frame's pose, which is the identity in our episodes
        np.testing.assert_allclose(read.c2w, episode.poses[:-1], atol=1e-6)
        np.testing.assert_allclose(read.intrinsics, episode.intrinsics[:-1], atol=1e-3)
        assert read.caption == "reach the red ball"


def test_the_lerobot_dataset_says_what_is_in_it(episodes: tuple[Recorded, ...], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="extra lerobot")
    export_lerobot(episodes, tmp_path / "reach", fps=4, task="reach")
    info = json.loads((tmp_path / "reach/meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (2, 6, 4)
    assert info["features"]["action"] == {"dtype": "float32", "shape": [6], "names": None}
    data = parquet.read_table(tmp_path / "reach/data/chunk-000/file-000.parquet")
    assert set(data.column_names) | {IMAGE} == set(info["features"])
    np.testing.assert_array_equal(np.array(data["action"].to_pylist(), np.float32)[3:], np.stack(episodes[1].actions))
    assert data["next.done"].to_pylist() == [False, False, True] * 2
    assert data["frame_index"].to_pylist() == [0, 1, 2] * 2
    stats = json.loads((tmp_path / "reach/meta/stats.json").read_text())
    assert stats["index"]["mean"] == [2.5]
    assert np.shape(stats[IMAGE]["mean"]) == (3, 1, 1)
    for arguments, message in (
        ((episodes, tmp_path / "reach", 4, "reach"), "expected episodes and a new folder"),
        ((episodes, tmp_path / "other", 4.5, "reach"), "expected a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            export_lerobot(*arguments)


def test_tasks_in_words() -> None:
    assert instruction("reach", "a room with a green door, two plants and a purple ball") == "reach the purple ball"
    assert instruction("reach", "") == "reach"
    assert instruction("explore", "a room with a red ball") == "explore"
