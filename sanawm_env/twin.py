"""SanaWMTwin-v0: the true renderer behind the interface of SanaWM-v0. The class docstring is the datasheet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gymnasium.vector import AutoresetMode

from sanawm_env.camera_env import CameraEnv, Settings
from sanawm_env.camera_vector import CameraVectorEnv, without_window
from sanawm_env.controls import Control
from sanawm_env.depth_views import make_twin_view
from sanawm_env.places import Place
from sanawm_env.starts import Start, find_bank
from sanawm_env.tasks import Task
from sanawm_env.twin_engine import TwinEngine
from world_model import checkpoint
from world_model.errors import StateError
from world_model.model import WorldModel


class SanaWMTwinEnv(CameraEnv):
    """A camera that flies through the true scene: what SanaWM-v0 generates, PyBullet renders.

    Spaces, tasks, control rate, frame size, intrinsics and draws are those of SanaWM-v0 with the same arguments: with
    equal seeds and actions both begin in the same scene at the same pose, take the same path and pay the same reward.
    Only the pixels differ, so the difference of two verdicts is the world model's. Needs the extra `bullet`.

    ## Action space

    That of SanaWM-v0: `Box(-1, 1, (6,), float32)`, or what `control` says.

    ## Observation space

    | `obs` | observation space | what |
    | --- | --- | --- |
    | "rgb", "float", "dict" | those of SanaWM-v0 | the last frame of the step, rendered |
    | "depth" | `Box(0, 40, (H, W, 1), float32)` | metres along the optical axis to what each pixel shows |
    | "rgbd" | `Dict` | `pixels` (H, W, 3) uint8 and `depth` (H, W, 1) float32 |

    "latent" is refused: a renderer has none. `WorldModel.tokenizer.encode` makes latents of frames.

    ## Info

    That of SanaWM-v0, and

    | key | when | value |
    | --- | --- | --- |
    | `contact` | always | bool: the camera, a ball of 0.12 m, touched walls, furniture or the goal during the step |
    | `depth` | with `depth=True`, "depth" or "rgbd" | (H, W, 1) float32, metres, of the observed frame |

    ## Reward

    That of SanaWM-v0: tasks judge by poses, and poses are the same.

    ## Start

    `reset(seed=, options=)` draws from the same bank with the same draws as SanaWM-v0, and renders the start frame.
    Options; any other key raises InputError:

    | option | value | default |
    | --- | --- | --- |
    | `scene` | index or name of a scene in the bank | drawn |
    | `room` | any procedural room: `{"split": "val", "index": 3, "seed": 0}`, as `sanawm data` numbers them | - |
    | `twin` | another twin, whose current view the episode starts from | - |
    | `prompt`, `goal` | as in SanaWM-v0 | the scene's |

    Rooms by `room` are not chosen to show their goal. `image` and `intrinsics` are refused: a picture cannot be
    rendered from elsewhere. SanaWM-v0 starts from what a twin shows now: `reset(options={"twin": twin})`.

    ## Episode end

    That of SanaWM-v0. Contact ends nothing.

    ## Snapshots

    As in SanaWM-v0, and small: scene, start pose and pose. Each refuses the other's by name.

    ## Arguments

    Those of SanaWM-v0 without `device`, and

    | argument | default | meaning |
    | --- | --- | --- |
    | `model` | "nano" | whose frame size, rate and bank of starts are used; no weights are read |
    | `depth` | False | `depth` in `info` |
    | `collide` | False | the camera slides along what it touches; its path is then no longer the world model's |

    ## Versions

    v0: first.
    """

    def __init__(
        self,
        model: str | Path | WorldModel = "nano",
        task: str | Task = "reach",
        max_speed: float | Sequence[float] | None = None,
        max_turn: float | Sequence[float] | None = None,
        starts: str | Path | None = None,
        info_frames: bool = False,
        render_mode: str | None = None,
        control: str | Control = "twist",
        obs: str = "rgb",
        pitch_limit: float | None = None,
        height_range: Sequence[float] | None = None,
        depth: bool = False,
        collide: bool = False,
    ) -> None:
        folder = None if isinstance(model, WorldModel) else checkpoint.find(model)
        config = model.config if isinstance(model, WorldModel) else checkpoint.load_config(checkpoint.find(model))
        view, shows_depth = make_twin_view(obs)
        settings = Settings(
            bank=find_bank(starts, folder),
            task=task,
            control=control,
            obs=view,
            max_speed=max_speed,
            max_turn=max_turn,
            pitch_limit=pitch_limit,
            height_range=height_range,
            info_frames=info_frames,
            render_mode=render_mode,
        )
        self._twin = TwinEngine(config, depth=depth or shows_depth, collide=collide)
        super().__init__(self._twin, settings)

    def current_start(self) -> Start:
        """What the camera sees now as a start scene, for this and other environments. Raises StateError before a reset.

        Its goal is that of the running episode, seen from here; its meta leads back to the room and the pose.
        """
        if self.world is None or self.episode is None:
            raise StateError("current_start: expected a running episode, got none; call reset first")
        arrays, episode = self.world.arrays, self.episode
        to_here = np.linalg.inv(episode.pose)
        goal = None if episode.goal is None else to_here[:3, :3] @ episode.goal + to_here[:3, 3]
        place = Place(scene_seed=int(arrays["scene"][0]), pose=arrays["start"][0] @ episode.pose)
        return Start(
            name=f"{episode.scene}+{episode.frame}",
            image=self._twin.look(self.world)[0],
            prompt=episode.prompt,
            intrinsics=episode.intrinsics.copy(),
            goal=goal,
            meta=place.meta(),
        )


class SanaWMTwinVectorEnv(CameraVectorEnv):
    """`num_envs` twins that step together; `gym.make_vec("SanaWMTwin-v0", num_envs=N)` makes one.

    What one is, `SanaWMTwinEnv` says; `num_envs`, `max_episode_steps` and `autoreset_mode`, `SanaWMVectorEnv`. Scenes
    are rendered one after the other: for more frames a second take `vectorization_mode="async"`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        model: str | Path | WorldModel = "nano",
        task: str | Task = "reach",
        max_speed: float | Sequence[float] | None = None,
        max_turn: float | Sequence[float] | None = None,
        starts: str | Path | None = None,
        info_frames: bool = False,
        render_mode: str | None = None,
        control: str | Control = "twist",
        obs: str = "rgb",
        pitch_limit: float | None = None,
        height_range: Sequence[float] | None = None,
        depth: bool = False,
        collide: bool = False,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        first = SanaWMTwinEnv(
            model=model,
            task=task,
            max_speed=max_speed,
            max_turn=max_turn,
            starts=starts,
            info_frames=info_frames,
            render_mode=without_window(render_mode),
            control=control,
            obs=obs,
            pitch_limit=pitch_limit,
            height_range=height_range,
            depth=depth,
            collide=collide,
        )
        super().__init__(first, num_envs, max_episode_steps, autoreset_mode)
