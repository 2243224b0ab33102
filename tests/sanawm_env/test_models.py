"""Weights: read once a process, left out of pickles, found again."""

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

from sanawm_env import models
from sanawm_env.env import SanaWMEnv
from world_model.errors import InputError
from world_model.model import WorldModel

Fly = Callable[..., list[Any]]
TURN = np.array([0, 0, 0.2, 0, 1, 0], np.float32)


def test_weights_are_read_once_a_process(
    model_folder: Path, sana_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_loaded", {})
    read = []
    original = WorldModel.from_pretrained.__func__
    load = classmethod(lambda cls, *given: read.append(given[0]) or original(cls, *given))
    monkeypatch.setattr(WorldModel, "from_pretrained", load)
    envs = [gym.make("SanaWM-v0", model=f) for f in (model_folder, str(model_folder), sana_folder, model_folder)]
    assert read == [model_folder.resolve(), sana_folder.resolve()]
    assert envs[0].unwrapped.model is envs[3].unwrapped.model  # pyright: ignore[reportAttributeAccessIssue]


def test_a_folder_that_was_trained_on_is_read_again(model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    before = models.shared_model(folder)
    assert models.shared_model(folder) is before
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("small-nano", "renamed"))
    assert models.shared_model(folder).config.name == "renamed"


def test_a_model_may_be_given_as_an_object(fly: Fly, model_folder: Path) -> None:
    model = WorldModel.from_pretrained(model_folder)
    named = SanaWMEnv(model=model_folder)
    given = SanaWMEnv(model=model, starts=model_folder / "starts")
    assert given.model is model
    assert data_equivalence(fly(given, 2), fly(named, 2), exact=True)
    with pytest.raises(InputError, match="expected the model's own, cpu, or none, got 'meta'"):
        SanaWMEnv(model=model, device="meta")


def test_pickles_without_weights_and_goes_on_where_it_was(fly: Fly, model_folder: Path) -> None:
    env = gym.make("SanaWM-v0", model=str(model_folder))
    fly(env, 5)
    data = pickle.dumps(env)
    weights = sum(path.stat().st_size for path in model_folder.glob("*.safetensors"))
    assert len(data) < weights
    woken, copied = pickle.loads(data), copy.deepcopy(env)
    expected = env.step(TURN)
    for other in (woken, copied):
        assert other.unwrapped.model is env.unwrapped.model  # pyright: ignore[reportAttributeAccessIssue]
        assert data_equivalence(other.step(TURN), expected, exact=True)
    assert data_equivalence(fly(woken, 6), fly(env, 6), exact=True)


def test_the_spec_survives_json_and_pickle(fly: Fly, model_folder: Path) -> None:
    arguments = {"model": str(model_folder), "max_speed": [0.5, 0.5, 0.5], "task": "none"}
    made = gym.make("SanaWM-v0", **arguments)
    assert made.spec is not None
    for spec in (gym.envs.registration.EnvSpec.from_json(made.spec.to_json()), pickle.loads(pickle.dumps(made.spec))):
        assert json.loads(spec.to_json()) == json.loads(made.spec.to_json())
        assert data_equivalence(fly(gym.make(spec), 4), fly(made, 4), exact=True)
