"""The small policy: its shapes, what it sees, and that its TorchScript says the same."""

from pathlib import Path

import numpy as np
import torch

from sanawm_env import se3
from sanawm_env.evaluate.policies import load_policy
from sanawm_env.learners.pixel_policy import AXES, PixelPolicy, goal_ahead


def test_a_saved_policy_acts_as_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = PixelPolicy()
    torch.nn.init.normal_(policy.steer[2].weight)
    frames = np.random.default_rng(0).integers(0, 256, (3, 96, 64, 3), np.uint8)
    with torch.no_grad():
        actions = policy(torch.from_numpy(frames)).numpy()
    assert (actions.shape, actions.dtype) == ((3, 6), np.float32)
    assert np.abs(actions).max() <= 1
    assert (np.abs(actions[:, AXES]) > 0).all()
    assert not np.delete(actions, AXES, axis=1).any()
    policy.save(tmp_path / "new" / "policy.pt")
    acts = load_policy(str(tmp_path / "new" / "policy.pt")).begin(seed=0)
    np.testing.assert_allclose(np.stack([acts(frame) for frame in frames]), actions, atol=1e-6)


def test_it_sees_averages_of_pixels() -> None:
    frames = torch.arange(64).repeat_interleave(3).reshape(1, 1, 64, 3).expand(1, 64, 64, 3).to(torch.uint8)
    small = PixelPolicy().shrink(frames)
    assert small.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(small[0, 0, 5].numpy(), 2 * np.arange(32) + 0.5, atol=0.5)


def test_the_goal_in_the_cameras_axes() -> None:
    pose = se3.exp(np.array([0.3, -0.2, 1.0, 0.2, 0.7, -0.1]))
    goal = np.array([1.0, 0.5, 3.0])
    agent_pos = np.concatenate([pose[:3, 3], pose[:3, 0], pose[:3, 1]])
    expected = (np.linalg.inv(pose) @ [*goal, 1])[:3]
    np.testing.assert_allclose(goal_ahead(agent_pos[None], goal[None])[0], expected, atol=1e-12)
