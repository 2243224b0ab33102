"""Snapshots beyond what tests/conformance holds for every environment: forks with seeds, files, every refusal."""

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sanawm_env.env import SanaWMEnv
from sanawm_env.snapshot import EnvState, RandomState
from sanawm_env.tasks import Episode, Verdict
from world_model.errors import InputError, StateError

AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)


def test_forks_keep_the_noise_unless_they_are_given_seeds(env: SanaWMEnv) -> None:
    env.reset(seed=0)
    env.step(AHEAD)
    same = [fork.step(AHEAD)[0] for fork in env.fork(2)]
    np.testing.assert_array_equal(*same)
    forks = env.fork(2, seeds=[5, 6])
    one, two = (fork.step(AHEAD)[0] for fork in forks)
    assert not np.array_equal(one, two)
    assert [fork.get_state().episodes[0].world_seed for fork in forks] == [5, 6]
    assert data_equivalence(forks[0].reset(), env.reset(seed=5), exact=True)  # later episodes follow the seed too


def test_a_snapshot_of_keys_goes_on_coasting(model_folder: Path, tmp_path: Path) -> None:
    env = SanaWMEnv(model=model_folder, control="keys", task="none")
    env.reset(seed=0)
    env.step(np.eye(8, dtype=np.int8)[0])
    env.get_state().save(tmp_path)
    expected = env.step(np.zeros(8, np.int8))
    env.set_state(EnvState.load(tmp_path))
    result = env.step(np.zeros(8, np.int8))
    assert data_equivalence(result, expected, exact=True)
    assert result[-1]["velocity"][2] > 0.1
    assert "goal" in result[-1]  # the scene has one, though the task does not ask for it


class CountDown:
    """Pays the steps so far, and ends after the third without judging it."""

    needs_goal = False

    def begin(self, episode: Episode) -> Verdict:
        return self.say(0)

    def judge(self, before: Episode, after: Episode) -> Verdict:
        return self.say(int(after.verdict.notes["steps"]) + 1)

    def say(self, steps: int) -> Verdict:
        notes = {"steps": np.array(steps), "odd.one": np.array([steps % 2 == 1])}
        return Verdict(reward=steps, terminated=False, is_success=False, truncated=steps == 3, notes=notes)


def test_what_a_task_noted_is_restored(model_folder: Path, tmp_path: Path) -> None:
    env = SanaWMEnv(model=model_folder, task=CountDown())
    env.reset(seed=0)
    env.step(AHEAD)
    env.get_state().save(tmp_path)
    assert env.step(AHEAD)[1] == 2
    state = EnvState.load(tmp_path)
    notes = state.episodes[0].verdict.notes
    assert {name: (note.tolist(), note.dtype.kind) for name, note in notes.items()} == {
        "steps": (1, "i"),
        "odd.one": ([True], "b"),
    }
    env.set_state(state)
    forks = [env, *env.fork(2)]
    assert [[fork.step(AHEAD)[1:4] for _ in range(2)] for fork in forks] == [[(2, False, False), (3, False, True)]] * 3
    with pytest.raises(StateError, match="step: expected a running episode, got one that has ended"):
        env.step(AHEAD)


def test_snapshots_stack_and_come_apart(env: SanaWMEnv) -> None:
    states = []
    for seed in (0, 1):
        env.reset(seed=seed)
        env.step(AHEAD * seed)
        states.append(env.get_state())
    both = EnvState.cat(states)
    assert len(both) == 2
    assert len(both[:1]) == 1
    env.set_state(states[1])
    expected = env.step(AHEAD)
    env.set_state(both[1])
    assert data_equivalence(env.step(AHEAD), expected, exact=True)


def test_what_cannot_be_restored(env: SanaWMEnv, sana_folder: Path, model_folder: Path) -> None:
    with pytest.raises(StateError, match="get_state: expected a running episode, got none"):
        env.get_state()
    env.reset(seed=0)
    state = env.get_state()
    with pytest.raises(StateError, match="set_state: expected one world, got 2"):
        env.set_state(state.fork(2))
    with pytest.raises(StateError, match=r"expected a snapshot of model tiny.*, got one of small-nano"):
        SanaWMEnv(model=sana_folder).set_state(state)
    blind = SanaWMEnv(model=model_folder, obs="latent")
    blind.reset(seed=0)
    with pytest.raises(StateError, match="expected a snapshot with decoded frames, got one flown in latent space"):
        env.set_state(blind.get_state())
    blind.set_state(state)
    bare = SanaWMEnv(model=model_folder, task="none")
    bare.reset(seed=0, options={"image": np.full((64, 64, 3), 90, np.uint8)})
    with pytest.raises(InputError, match="goal: expected a snapshot with a goal for task Reach"):
        env.set_state(bare.get_state())
    with pytest.raises(InputError, match="fork: expected a count above 0 and seeds of at least 0, got 0"):
        env.fork(0)
    with pytest.raises(InputError, match="seeds: expected 2, one a world, got 1"):
        env.fork(2, seeds=[1])
    with pytest.raises(StateError, match="expected one of a PCG64"):
        RandomState(generator={"bit_generator": "MT19937"}, seed=0).revive()


def test_files_that_are_no_snapshot(env: SanaWMEnv, tmp_path: Path) -> None:
    env.reset(seed=0)
    env.get_state().save(tmp_path)
    path = tmp_path / "episodes.safetensors"
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    save_file({k: v for k, v in arrays.items() if k != "0.pose"}, path, metadata)
    with pytest.raises(StateError, match=r"expected every field of an episode, got .*'pose'"):
        EnvState.load(tmp_path)
    save_file(arrays, path, metadata | {"version": "1"})
    with pytest.raises(StateError, match=r"expected format 'sanawm-env-state' version 2, got .* version 1"):
        EnvState.load(tmp_path)
    header = json.loads(metadata["state"])
    save_file(arrays, path, metadata | {"state": json.dumps(header | {"random": []})})
    with pytest.raises(StateError, match=r"expected as many worlds as episodes and random states, got \(1, 1, 0\)"):
        EnvState.load(tmp_path)
    path.write_bytes(b"none")
    with pytest.raises(StateError, match="expected the episodes of a snapshot, got"):
        EnvState.load(tmp_path)
