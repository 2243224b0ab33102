"""The clones: what they see, how they learn, and that those that are shipped steer as they should."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sanawm_env.evaluate.clone import SIDE, WEIGHTS, Clone, CloneNetwork, to_input
from sanawm_env.evaluate.shipped import shipped
from sanawm_env.evaluate.train_clones import STAGES, TrainClones, train
from sanawm_env.evaluate.views import Views, act, look_at, sample_poses
from sanawm_env.scenes import make_scene, scene_seed
from world_model.errors import InputError


def views(count: int, seed: int = 0) -> Views:
    """Grey pictures with a red square, and yaw towards it."""
    rng = np.random.default_rng(seed)
    pictures, actions = np.full((count, 64, 64, 3), 130, np.uint8), np.zeros((count, 6), np.float32)
    for i, column in enumerate(rng.integers(4, 60, count)):
        pictures[i, 28:36, column - 4 : column + 4] = (220, 20, 30)
        actions[i, 4] = (column - 32) / 40
    return Views(pictures=pictures, actions=actions)


def test_training_learns_and_keeps_its_stages(tmp_path: Path) -> None:
    config = TrainClones(out=tmp_path / "clones.safetensors", batch=32, step_size=3e-3)
    weights = train(views(128), config, {"first": 1, "last": 150})
    assert weights.keys() == {f"{stage}/{name}" for stage in ("first", "last") for name in CloneNetwork().state_dict()}
    save_file(weights, config.out)
    unseen = views(24, seed=1)
    errors = {}
    for stage in ("first", "last"):
        act = Clone(stage=stage, weights=config.out).begin(0)
        given = np.stack([act(picture) for picture in unseen.pictures])
        errors[stage] = float(np.square(given - unseen.actions).mean())
    assert errors["last"] < 0.25 * errors["first"]
    again = train(views(128), config, {"first": 1})
    assert torch.equal(again["first/head.2.bias"], weights["first/head.2.bias"])
    with pytest.raises(InputError, match=r"stage: expected one of \['first', 'last'\]"):
        Clone(stage="middle", weights=config.out)


def test_pictures_of_any_size_are_averaged_to_the_networks() -> None:
    picture = np.zeros((1, 128, 128, 3), np.uint8)
    picture[0, ::2] = 255
    seen = to_input(picture)
    assert seen.shape == (1, 3, SIDE, SIDE)
    assert seen.unique().tolist() == pytest.approx([0.5], abs=1e-6)


def test_the_shipped_clones_are_small_and_turn_to_the_goal() -> None:
    assert WEIGHTS.stat().st_size < 300_000
    assert {name.split("/")[0] for name in load_file(WEIGHTS)} == STAGES.keys()
    assert sum(value.numel() for value in CloneNetwork().parameters()) < 200_000
    act = shipped()["clone"].begin(0)
    pictures = np.full((2, 128, 128, 3), (170, 165, 150), np.uint8)
    pictures[0, 60:80, 95:115] = pictures[1, 60:80, 13:33] = (225, 20, 25)
    right, left = (act(picture) for picture in pictures)
    assert right.dtype == np.float32
    assert right[4] > 0.3 > -0.3 > left[4]


def test_views_are_about_the_goal_and_inside_the_room() -> None:
    scene = make_scene(scene_seed("train", 3))
    goal = np.array(scene.goal.centre)
    poses = sample_poses(scene, 12, np.random.default_rng(0))
    assert len(poses) == 12
    distances = [np.linalg.norm(pose[:3, 3] - goal) for pose in poses]
    assert min(distances) >= 0.75
    assert scene.space(goal=False).clearance(np.stack(poses)[:, :3, 3]).min() > 0.1
    looking = look_at(poses[0][:3, 3], goal)
    assert looking[:3, :3] @ looking[:3, :3].T == pytest.approx(np.eye(3), abs=1e-9)
    assert act(looking, goal) == pytest.approx([0, 0, 1, 0, 0, 0], abs=1e-6)
