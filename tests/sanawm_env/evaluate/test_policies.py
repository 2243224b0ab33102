"""Policies: where they come from, what they do with a picture, and what makes them worse."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch

from sanawm_env.evaluate import handicaps
from sanawm_env.evaluate.handicaps import Blur, Late, Random, Shift, Through, Trembling
from sanawm_env.evaluate.policies import Plain, load_policy
from sanawm_env.evaluate.privileged import Expert
from sanawm_env.evaluate.servo import Servo, find_goal, strongest_colour
from sanawm_env.evaluate.steering import Steering
from world_model.errors import InputError


def room(column: int, row: int, half: int = 6, colour: tuple[int, int, int] = (220, 20, 30)) -> np.ndarray:
    """A grey picture 128 x 128 with a square of strong colour."""
    picture = np.full((128, 128, 3), (150, 140, 125), np.uint8)
    picture[row - half : row + half, column - half : column + half] = colour
    return picture


def ahead(picture: np.ndarray) -> np.ndarray:
    return np.array([0, 0, picture.mean() / 255, 0, 0, 0], np.float32)


def test_the_servo_finds_the_goal_where_it_is() -> None:
    picture = room(96, 40)
    sight = find_goal(picture, strongest_colour(picture))
    assert sight is not None
    focal = 64 / np.tan(np.radians(35))
    assert sight.direction == pytest.approx([32 / focal, -24 / focal, 1])
    assert sight.share == pytest.approx(144 / 128**2)
    assert find_goal(room(64, 64, colour=(150, 140, 125)), strongest_colour(picture)) is None


def test_the_servo_turns_to_the_goal_and_remembers_its_colour_and_side() -> None:
    act = Servo().begin(0)
    right = act(room(110, 64))
    assert right[4] == 1
    assert right[3] == pytest.approx(0, abs=0.01)
    assert act(room(20, 64))[4] == -1
    assert act(room(64, 110))[3] == -1  # below: it looks down
    lost = act(room(64, 64, colour=(20, 200, 40)))  # another colour is no goal
    assert lost.tolist() == pytest.approx([0, 0, 0, 0, 0.5, 0])
    middle = act(room(64, 64))
    assert middle[2] == pytest.approx(1, abs=1e-3)
    assert Servo(stops_at=0.5).begin(0)(room(64, 64, half=60)).any() is np.False_


def test_strafing_moves_instead_of_turning() -> None:
    act = Servo(steering=Steering(way="strafe")).begin(0)
    action = act(room(80, 50))
    assert action[0] > 0 > action[1]
    assert not action[3:].any()


def test_the_expert_steers_by_pose() -> None:
    pose = np.eye(4)
    pose[:3, 3] = [0, 0, 1]
    assert Expert()({"pose": pose, "goal": np.array([0, 0, 3.0])}) == pytest.approx([0, 0, 1, 0, 0, 0])
    behind = {"pose": pose, "goal": np.array([0.1, 0, -3.0])}
    assert Expert()(behind)[4] == 1
    assert Expert(searching=True)(behind).tolist() == pytest.approx([0, 0, 0, 0, 0.5, 0])


def test_late_actions_are_the_same_ones_later() -> None:
    late = Late(policy=Plain(ahead), steps=2).begin(0)
    given = [late(np.full((8, 8, 3), value, np.uint8))[2] for value in (51, 102, 153)]
    assert given == pytest.approx([0, 0, 0.2])


def test_trembling_mixes_noise_and_repeats_with_its_seed() -> None:
    policy = Trembling(policy=Plain(ahead), level=0.5)
    picture = np.full((8, 8, 3), 255, np.uint8)
    one, two, other = (policy.begin(seed) for seed in (1, 1, 2))
    first = one(picture)
    assert first == pytest.approx(two(picture))
    assert abs(first - other(picture)).max() > 0.01
    many = np.stack([one(picture) for _ in range(400)])
    assert many.mean(0) == pytest.approx([0, 0, 0.5, 0, 0, 0], abs=0.06)
    assert np.abs(many[:, 0]).max() <= 0.5
    assert Random().begin(3)(picture) == pytest.approx(Random().begin(3)(picture))


def test_blur_keeps_the_mean_and_spreads_an_edge() -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 64:] = 200
    seen = Blur(radius=3)(picture)
    assert seen[:, :50].max() == 0
    assert seen[:, 78:].min() == 200
    assert seen[32, 63:65, 0].astype(int).sum() == pytest.approx(200, abs=2)
    variance = 3 * (7**2 - 1) / 12  # of three boxes seven wide
    slope = np.diff(seen[32, :, 0].astype(float)) / 200
    places = np.arange(127) + 1.0
    assert (slope * (places - 64) ** 2).sum() == pytest.approx(variance, rel=0.05)


def test_shift_changes_colours_as_told() -> None:
    picture = np.full((2, 2, 3), (200, 100, 0), np.uint8)
    assert Shift(strength=0.5)(picture)[0, 0].tolist() == [150, 100, 50]
    assert Shift(gain=0.5, tint=(10, 0, 300))(picture)[0, 0].tolist() == [110, 50, 255]
    seen = []
    Through(policy=Plain(lambda p: seen.append(p)), filter=Shift(strength=0)).begin(0)(picture)
    assert seen[0][0, 0].tolist() == [100, 100, 100]


def test_policies_come_by_name_module_and_file(tmp_path: Path) -> None:
    name = f"{handicaps.__name__}:Random"
    with pytest.raises(InputError, match="a function of a picture or a Policy"):
        load_policy(name)
    assert load_policy("numpy:negative").begin(0)(np.ones(6)).tolist() == [-1] * 6
    assert load_policy("servo") == Servo()

    class Mean(torch.nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.float().mean((1, 2))[:, [0, 1, 2, 0, 1, 2]] / 255

    torch.jit.script(Mean()).save(str(tmp_path / "mean.pt"))
    act = load_policy(str(tmp_path / "mean.pt")).begin(0)
    assert act(np.full((8, 8, 3), 51, np.uint8)) == pytest.approx([0.2] * 6)
    for wrong in ("nobody", "nowhere:nothing", "missing.zip"):
        with pytest.raises(InputError, match="expected"):
            load_policy(wrong)


def test_models_of_stable_baselines_are_loaded(tmp_path: Path) -> None:
    class Grey(gym.Env):
        observation_space = gym.spaces.Box(0, 255, (40, 40, 3), np.uint8)
        action_space = gym.spaces.Box(-1, 1, (6,), np.float32)

    model = stable_baselines3.PPO("MlpPolicy", Grey(), n_steps=8, batch_size=8, device="cpu", seed=0)
    model.save(tmp_path / "ppo.zip")
    picture = np.full((40, 40, 3), 51, np.uint8)
    given = load_policy(str(tmp_path / "ppo.zip")).begin(0)(picture)
    assert given == pytest.approx(model.predict(picture, deterministic=True)[0])
    with pytest.raises(InputError, match="an algorithm of Stable-Baselines3"):
        load_policy(f"Chess:{tmp_path / 'ppo.zip'}")
