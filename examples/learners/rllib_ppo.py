"""RLlib's PPO, which takes float pictures: python examples/learners/rllib_ppo.py --iterations 2"""

import ray
import tyro
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig


def main(model: str = "nano", iterations: int = 2, steps: int = 128) -> None:
    """Train on the reach task, from pixels.

    Args:
        model: a shipped model by name, or a folder.
        iterations: of collecting and learning.
        steps: collected in each.
    """
    ray.init(num_cpus=1, include_dashboard=False)
    config = (
        PPOConfig()
        .environment("sanawm_env:SanaWM-v0", env_config={"model": model, "obs": "float", "max_episode_steps": 32})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1)
        .training(train_batch_size_per_learner=steps, minibatch_size=32, num_epochs=2, lr=3e-4, gamma=0.95)
        .rl_module(
            model_config=DefaultModelConfig(
                conv_filters=[[16, 8, 4], [32, 4, 2], [32, 4, 2]], conv_activation="relu", head_fcnet_hiddens=[64]
            )
        )
    )
    algorithm = config.build_algo()
    for i in range(iterations):
        result = algorithm.train()["env_runners"]
        print(f"iteration {i}: {result['num_env_steps_sampled']} steps, return {result.get('episode_return_mean')}")
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    tyro.cli(main)
