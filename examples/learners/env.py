"""What a LeRobot EnvHub repository holds, beside a README that asks for `pip install sanawm-env`.

    lerobot-eval --env.type=hub --env.hub_path=USER/REPOSITORY --trust_remote_code=true ...

Try it without LeRobot: python examples/learners/env.py
"""

from sanawm_env.learners.lerobot_env import make_env

__all__ = ["make_env"]

if __name__ == "__main__":
    worlds = make_env(n_envs=2)
    observations, _ = worlds.reset(seed=[0, 1])
    print({key: value.shape for key, value in observations.items()}, worlds.call("task_description"))
    worlds.close()
