"""PPO with TorchRL's collector, advantage and loss, in latent space: python examples/learners/torchrl_ppo.py"""

import gymnasium as gym
import torch
import tyro
from tensordict.nn import TensorDictModule
from tensordict.nn.distributions import NormalParamExtractor
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import RewardSum, TransformedEnv
from torchrl.envs.libs.gym import GymWrapper
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import sanawm_env  # noqa: F401  (registers the environments)


def main(model: str = "nano", worlds: int = 4, steps: int = 512, horizon: int = 16) -> None:
    """Train on the reach task; the observation is the world model's own latent, and nothing is decoded.

    Args:
        model: a shipped model by name, or a folder.
        worlds: that step together.
        steps: of all worlds in sum.
        horizon: steps of each world between two updates.
    """
    given = {"model": model, "obs": "latent", "max_episode_steps": 32, "autoreset_mode": "SameStep"}
    env = GymWrapper(gym.make_vec("SanaWM-v0", num_envs=worlds, **given))
    env = TransformedEnv(env, RewardSum())
    actor = nn.Sequential(nn.Flatten(-3), nn.LazyLinear(64), nn.Tanh(), nn.LazyLinear(2 * 6), NormalParamExtractor())
    policy = ProbabilisticActor(
        TensorDictModule(actor, in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        return_log_prob=True,
    )
    critic = ValueOperator(nn.Sequential(nn.Flatten(-3), nn.LazyLinear(64), nn.Tanh(), nn.LazyLinear(1)))
    policy(env.reset())
    critic(env.reset())
    advantage = GAE(gamma=0.95, lmbda=0.95, value_network=critic)
    loss = ClipPPOLoss(policy, critic)
    optimizer = torch.optim.Adam(loss.parameters(), 3e-4)
    for batch in Collector(env, policy, frames_per_batch=worlds * horizon, total_frames=steps):
        for _ in range(4):
            advantage(batch)
            losses = loss(batch.reshape(-1))
            optimizer.zero_grad()
            sum(value for key, value in losses.items() if key.startswith("loss_")).backward()
            optimizer.step()
        done = batch["next", "done"]
        returns = batch["next", "episode_reward"][done]
        print(f"reward a step {batch['next', 'reward'].mean():+.3f}, returns of {len(returns)}: {returns.tolist()}")
    env.close()


if __name__ == "__main__":
    tyro.cli(main)
