"""Tasks behind the environment: options, goal views, observations, notes through forks, files and many worlds."""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sanawm_env.env import SanaWMEnv
from sanawm_env.goal_views import GoalView, read_goal_views, write_goal_views
from sanawm_env.snapshot import EnvState
from sanawm_env.starts import read_starts, write_starts
from sanawm_env.tasks import Explore, ImageGoal, TrackPath
from world_model.errors import InputError, StateError

AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)
PICTURE = np.tile(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], (90, 1, 3))


@pytest.fixture
def bank(model_folder: Path, tmp_path: Path) -> Path:
    """The small model's bank, with a goal view for each scene, a quarter of a metre ahead."""
    starts = read_starts(model_folder / "starts")
    write_starts(tmp_path, starts)
    pose = np.eye(4)
    pose[2, 3] = 0.25
    write_goal_views(tmp_path, [[GoalView(image=255 - start.image, pose=pose)] for start in starts])
    return tmp_path


def test_a_scene_brings_its_goal_view(model_folder: Path, bank: Path) -> None:
    task = ImageGoal(distance=0.1, bonus=2.0)
    env = SanaWMEnv(model=model_folder, starts=bank, task=task, obs="pictures")
    seen, _ = env.reset(seed=0, options={"scene": 1})
    assert set(seen) == set(env.observation_space) == {"pixels", "goal_image"}
    np.testing.assert_array_equal(seen["goal_image"], 255 - read_starts(bank)[1].image)
    seen["goal_image"][...] = 0  # the user's own
    seen, reward, terminated, _, info = env.step(AHEAD)
    assert seen["goal_image"].any()
    assert (reward, terminated, info["is_success"]) == (pytest.approx(0.25 + 2), True, True)


def test_a_picture_alone_is_compared_by_latents(model_folder: Path) -> None:
    env = SanaWMEnv(model=model_folder, task=ImageGoal(similarity=0.999), obs="dict")
    options = {"scene": 0, "goal_image": PICTURE}
    seen, info = env.reset(seed=0, options=options)
    assert seen["goal_image"].shape == (64, 64, 3)
    assert info["is_success"] is False
    notes = env.get_state().episodes[0].verdict.notes
    assert set(notes) == {"goal_image", "goal_latent"}
    start = env.simulator.bank[0].image
    assert env.reset(seed=0, options=options | {"goal_image": start})[1]["is_success"] is True  # it is there already
    with pytest.raises(InputError, match=r"expected options\['goal_image'\] or a start scene with goal views"):
        env.reset(seed=0)
    with pytest.raises(InputError, match="goal_image: expected numbers, got"):
        env.reset(seed=0, options={"goal_image": "a.png"})
    with pytest.raises(InputError, match="options: expected keys out of"):
        SanaWMEnv(model=model_folder).reset(options=options)  # another task's


def test_a_path_by_options_and_what_shows_it(model_folder: Path) -> None:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, 2, 3] = 0.25, 0.5
    env = SanaWMEnv(model=model_folder, task=TrackPath(ahead=1), obs="dict")
    seen, _ = env.reset(seed=0, options={"path": poses})
    np.testing.assert_allclose(seen["path"][0], [0, 0, 0.25, 1, 0, 0, 0, 1, 0], atol=1e-6)
    assert env.step(AHEAD)[1:3] == (pytest.approx(1), False)
    assert env.step(AHEAD)[1:3] == (pytest.approx(1), True)
    assert "path" not in SanaWMEnv(model=model_folder, task="track-path", obs="pictures").observation_space.spaces


@pytest.mark.parametrize("task", ["explore", "track-path"])
def test_notes_go_through_snapshots_forks_and_files(task: str, model_folder: Path, tmp_path: Path) -> None:
    env = SanaWMEnv(model=model_folder, task=task)
    env.reset(seed=0)
    env.step(AHEAD)
    state = env.get_state()
    state.save(tmp_path)
    expected = [env.step(AHEAD)[1] for _ in range(3)]
    (fork,) = env.fork(1)
    fork.set_state(EnvState.load(tmp_path))
    assert [fork.step(AHEAD)[1] for _ in range(3)] == expected
    env.set_state(state)
    assert [env.step(AHEAD)[1] for _ in range(3)] == expected


def test_many_worlds_have_notes_of_their_own(model_folder: Path) -> None:
    worlds = gym.make_vec("SanaWM-TrackPath-v0", num_envs=2, model=model_folder)
    seen, _ = worlds.reset(seed=4)
    _, rewards, *_ = worlds.step(np.stack([AHEAD, AHEAD]))
    for i in range(2):
        env = gym.make("SanaWM-TrackPath-v0", model=model_folder)
        alone, _ = env.reset(seed=4 + i)
        np.testing.assert_array_equal(seen["path"][i], alone["path"])
        assert env.step(AHEAD)[1] == rewards[i]
    assert rewards[0] != rewards[1]


def test_a_task_that_did_not_begin_the_episode(model_folder: Path) -> None:
    env = SanaWMEnv(model=model_folder)
    env.reset(seed=0)
    env.task = "explore"
    with pytest.raises(StateError, match=r"with notes \['visited'\], got one with \[\]; call reset first"):
        env.step(AHEAD)
    env.reset(seed=0)
    assert env.step(AHEAD)[1] == 1
    shows = SanaWMEnv(model=model_folder, task="track-path", obs="dict")
    shows.task = "none"
    with pytest.raises(StateError, match=r"expected a task that shows \['path'\], got NoTask"):
        shows.reset(seed=0)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6), min_size=1, max_size=3))
def test_whatever_the_actions_rewards_keep_to_their_bounds(env: SanaWMEnv, actions: list[list[float]]) -> None:
    env.task = "reach"
    _, info = env.reset(seed=1)
    start, total = np.linalg.norm(info["goal"]), 0.0
    for action in actions:
        *_, info = result = env.step(np.array(action, np.float32))
        total += result[1]
        rotation = info["pose"][:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert total == pytest.approx(start - np.linalg.norm(info["goal"] - info["pose"][:3, 3]))
    for task, low, high in ((TrackPath(), 0, 1), (Explore(), 0, 1)):
        env.task = task
        env.reset(seed=1)
        rewards = [env.step(np.array(action, np.float32))[1] for action in actions]
        assert all(low <= reward <= high for reward in rewards)


def test_goal_views_that_are_none(bank: Path) -> None:
    views = read_goal_views(bank, 3)
    with pytest.raises(InputError, match="expected images and poses of as many views for each of 2 scenes, got"):
        read_goal_views(bank, 2)
    with pytest.raises(InputError, match=r"goal views: expected as many of each scene, got \[1, 0\]"):
        write_goal_views(bank, [views[0], ()])
    (bank / "goals.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="expected goal views, got"):
        read_starts(bank)
    (bank / "goals.safetensors").unlink()
    assert all(start.goal_views == () for start in read_starts(bank))


def test_shipped_goal_views_are_near_and_rigid() -> None:
    from world_model.checkpoint import ASSETS

    starts: Any = read_starts(ASSETS / "nano" / "starts")
    poses = np.stack([view.pose for start in starts for view in start.goal_views])
    assert len(poses) == 2 * len(starts)
    metres = np.linalg.norm(poses[:, :3, 3], axis=1)
    assert (metres >= 0.8).all()
    assert (metres <= 6).all()  # six seconds at a metre a second
    assert {view.image.shape for start in starts for view in start.goal_views} == {starts[0].image.shape}
    assert dataclasses.is_dataclass(starts[0].goal_views[0])
