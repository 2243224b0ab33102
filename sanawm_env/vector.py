"""SanaWMVectorEnv: many worlds of one world model in one batch: a forward a CPU core, one on a GPU."""

from collections.abc import Sequence
from pathlib import Path

from gymnasium.vector import AutoresetMode

from sanawm_env.camera_vector import CameraVectorEnv, without_window
from sanawm_env.controls import Control
from sanawm_env.env import SanaWMEnv
from sanawm_env.reliability import Measure
from sanawm_env.tasks import Task
from world_model.model import WorldModel


class SanaWMVectorEnv(CameraVectorEnv):
    """`num_envs` worlds that step together; `gym.make_vec("SanaWM-v0", num_envs=N)` makes one.

    What one world is, `SanaWMEnv` says: same arguments, spaces, info and draws. World i with seed s + i is the single
    environment with that seed: same scene, same noise, same path and reward; pixels differ by rounding, as arithmetic
    in another batch size does. Worlds may be at different steps of their episodes.

    ## Arguments beside those of SanaWMEnv

    | argument | default | meaning |
    | --- | --- | --- |
    | `num_envs` | 1 | worlds |
    | `max_episode_steps` | None | steps after which an episode is truncated; `gym.make_vec` gives that of the id |
    | `autoreset_mode` | NEXT_STEP | an `AutoresetMode` or its value: "NextStep", "SameStep", "Disabled" |

    "human" is no render mode here. `reset(seed=s)` seeds world i with s + i; a sequence seeds each. Options of `reset`
    hold for all worlds, and two more are known: `reset_mask` (N,) bool, which worlds to reset, and `per_world`, a
    sequence of N mappings of options for each. `call`, `get_attr` and `set_attr` reach each world as if it were a
    single environment: `set_attr("task", [Reach(radius=0.5), Reach(radius=1.0)])`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        model: str | Path | WorldModel = "nano",
        task: str | Task = "reach",
        device: str | None = None,
        max_speed: float | Sequence[float] | None = None,
        max_turn: float | Sequence[float] | None = None,
        starts: str | Path | None = None,
        info_frames: bool = False,
        render_mode: str | None = None,
        control: str | Control = "twist",
        obs: str = "rgb",
        pitch_limit: float | None = None,
        height_range: Sequence[float] | None = None,
        reliability: str | Measure | None = "change",
        min_reliability: float = 0.0,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        first = SanaWMEnv(
            model=model,
            task=task,
            device=device,
            max_speed=max_speed,
            max_turn=max_turn,
            starts=starts,
            info_frames=info_frames,
            render_mode=without_window(render_mode),
            control=control,
            obs=obs,
            pitch_limit=pitch_limit,
            height_range=height_range,
            reliability=reliability,
            min_reliability=min_reliability,
        )
        super().__init__(first, num_envs, max_episode_steps, autoreset_mode)
