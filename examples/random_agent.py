"""A random agent in the default task: python examples/random_agent.py --steps 16"""

import gymnasium as gym
import tyro


def main(model: str = "nano", steps: int = 16, seed: int = 0) -> None:
    """Act at random, print what comes back.

    Args:
        model: a shipped model by name, or a folder.
        steps: how many steps to take; an episode that ends is followed by the next.
        seed: of the scenes, the worlds' noise and the actions.
    """
    env = gym.make("sanawm_env:SanaWM-v0", model=model)  # the part before the colon is imported, and registers it
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    print(f"observation {observation.shape} {observation.dtype} of {info['scene']}: {info['prompt']}")
    for step in range(steps):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        x, y, z = info["pose"][:3, 3]
        first, last = info["moved_frames"]
        print(f"step {step}: frames {first}-{last}, camera at ({x:.2f}, {y:.2f}, {z:.2f}) m, reward {reward:+.3f}")
        if terminated or truncated:
            print("success" if info["is_success"] else "time is up")
            observation, info = env.reset()
    env.close()


if __name__ == "__main__":
    tyro.cli(main)
