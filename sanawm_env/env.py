"""SanaWM-v0: a world model behind Gymnasium's interface. The class docstring is the datasheet."""

from collections.abc import Sequence
from pathlib import Path

from sanawm_env.camera_env import CameraEnv, Settings
from sanawm_env.controls import Control
from sanawm_env.reliability import Measure, make_reliability
from sanawm_env.starts import find_bank
from sanawm_env.tasks import Task
from sanawm_env.world_model_engine import WorldModelEngine
from world_model import checkpoint
from world_model.model import WorldModel


class SanaWMEnv(CameraEnv):
    """A camera that flies through a generated world.

    A start picture is turned into a world; each action moves the camera with six degrees of freedom, and the world
    model generates what it then sees. One step is one chunk of video: F = `model.config.frames_per_step` frames
    (nano: 4 at 16 fps, a quarter of a second). There is no physics: the camera passes through walls.

    ## Action space

    What an action is, `control` says. The default, "twist", is `Box(-1, 1, (6,), float32)`: the camera's twist in its
    own axes (OpenCV: x right, y down, z forward), held for the F frames of the step and integrated frame by frame by
    the SE(3) exponential. Default limits are the speeds that nano's training data shows.

    | index | action | -1 | +1 | limit (argument) |
    | --- | --- | --- | --- | --- |
    | 0 | vx | left | right | 0.6 m/s (`max_speed`) |
    | 1 | vy | up | down | 0.4 m/s (`max_speed`) |
    | 2 | vz | back | ahead | 1.0 m/s (`max_speed`) |
    | 3 | wx | pitch down | pitch up | 30 deg/s (`max_turn`) |
    | 4 | wy | yaw left | yaw right | 45 deg/s (`max_turn`) |
    | 5 | wz | roll left | roll right | 20 deg/s (`max_turn`) |

    | `control` | action space | meaning |
    | --- | --- | --- |
    | "twist" | `Box(-1, 1, (6,), float32)` | the table above |
    | "planar" | `Box(-1, 1, (2,), float32)` | vz and wy of the table, for robots on wheels |
    | "chunked" | `Box(-1, 1, (F, 6), float32)` | a twist for every frame |
    | "keys" | `MultiBinary(8)` | keys held for the step: ahead, back, right, left, turn right, left, look up, down |
    | "discrete" | `Discrete(9)` | 0: no key; 1 to 8: one of these keys |

    Keys mean what they mean in action strings v2 (0.4 m/s, 9.6 deg/s, coasting after release); "keys-v1" and
    "discrete-v1" follow v1 (0.8 m/s, 19.2 deg/s). `env.unwrapped.step_to(poses)` takes the camera through absolute
    poses (F, 4, 4) instead. What is no element of the action space raises InputError, and the world stays as it was.

    ## Observation space

    | `obs` | observation space | what |
    | --- | --- | --- |
    | "rgb" | `Box(0, 255, (H, W, 3), uint8)` | the last frame of the step (nano: 128x128); the default |
    | "float" | `Box(0, 1, (H, W, 3), float32)` | the same in [0, 1] |
    | "dict" | `Dict` | `pixels` as "rgb"; `agent_pos` (9,): position, first two columns of the rotation; `intrinsics` |
    | | | (4,); `goal` (3,) if the task has one; what the task adds; metres, start camera's axes |
    | "pictures" | `Dict` | `pixels` as "rgb"; the task's pictures, such as `goal_image`; nothing privileged |
    | "latent" | `Box((C, Y, X), float32)` | the world model's own last latent (nano: 48x8x8); nothing is decoded |

    Only "dict" tells where the camera and the goal are; the others leave that to `info`.

    ## Info

    | key | when | value |
    | --- | --- | --- |
    | `pose` | always | (4, 4) float64, camera-to-world of the observed frame, relative to the start frame, metres |
    | `velocity` | always | (6,) float64, twist that moved the camera to the observed frame, m/s and rad/s |
    | `time` | always | float, simulated seconds since the start frame |
    | `intrinsics` | always | (4,) float32: fx, fy, cx, cy in pixels of the observed frame |
    | `is_success` | always | bool, of the observed frame |
    | `reliability` | unless turned off | float, how far the picture can be trusted: 1 at the start, then falling to 0 |
    | `goal` | if there is one | (3,) float64, metres in the start camera's axes; privileged |
    | `moved_frames` | step | (2,) int64: first and last frame that this action moved; frame 0 is the start |
    | `frames` | step, on request | (F, H, W, 3) uint8: all frames of the step |
    | `scene`, `prompt` | reset | name of the start scene ("image" for the user's own), text that the world is told |
    | `intrinsics_source` | reset | "given", or the default in words |
    | `world_seed` | reset | int, seed of the world's noise |

    ## Reward

    `task="reach"` (default): by how many metres the step brought the camera nearer to the goal, plus 1.0 when it
    comes within 0.8 m of the goal's centre. The start frame shows the goal, a ball, cube, cone or barrel of strong
    colour. `task="none"`: 0, or `reward_fn`. Other tasks have ids and pages of their own (docs/envs): "image-goal",
    "explore", "track-path"; they may read further options. A task of your own: `sanawm_env.tasks.Task`.

    ## Start

    `reset(seed=, options=)` draws a scene from the bank of start scenes and a seed for the world's noise; equal
    seeds and actions give equal episodes on one machine. Options, any other key raises InputError:

    | option | value | default |
    | --- | --- | --- |
    | `scene` | index or name of a scene in the bank | drawn |
    | `image` | your own start picture (h, w, 3) uint8; resized to cover, cropped at the centre | - |
    | `twin` | a SanaWMTwin-v0, whose current view the episode starts from, goal included | - |
    | `intrinsics` | (4,) fx, fy, cx, cy in pixels of `image` | 70 degrees horizontal field of view |
    | `prompt` | text | the scene's caption; empty with `image` |
    | `goal` | (3,) metres in the start camera's axes | the scene's; with `image` none: only task "none" accepts it |

    ## Episode end

    Terminated when the task is done (reach: within 0.8 m). Truncated by a step that ends below `min_reliability`, and
    by `gym.make` after 64 steps; its argument `max_episode_steps` changes that. A step after the end, or before the
    first reset, raises StateError.

    ## Snapshots

    `env.unwrapped.get_state()` and `.set_state(state)` keep and restore everything, random draws included, bit for
    bit; `.fork(n, seeds=None)` gives n environments that go on from here. `state.save(folder)` and `EnvState.load`
    (`sanawm_env.snapshot`) write and read them. The time limit that `gym.make` adds counts on by itself.

    ## Arguments

    | argument | default | meaning |
    | --- | --- | --- |
    | `model` | "nano" | a shipped name, a folder, or a WorldModel; by name or folder, weights are read once a process |
    | `task` | "reach" | "reach", "image-goal", "explore", "track-path", "none", or a Task |
    | `device` | "cpu" | torch device; leave out with a WorldModel, which has one |
    | `control` | "twist" | see action space; or a Control of your own |
    | `obs` | "rgb" | see observation space |
    | `max_speed` | (0.6, 0.4, 1.0) | m/s along x, y, z at an action of 1; one number for all |
    | `max_turn` | radians of (30, 45, 20) | rad/s about x, y, z at an action of 1; one number for all |
    | `pitch_limit` | None | radians that the view may point above or below the start's |
    | `height_range` | None | lowest and highest height above the start, metres, as (-0.3, 0.5) |
    | `starts` | the model's own | folder of a bank of start scenes; a model without one uses nano's |
    | `info_frames` | False | all frames of each step in `info` |
    | `render_mode` | None | "rgb_array": the observed frame; "human": a window with every frame (needs pygame) |
    | `reliability` | "change" | "change": free; "seeds": costs a second forward; None: not measured; or a Measure |
    | `min_reliability` | 0.0 | an episode is truncated by a step that ends below this reliability |

    An environment made by name or folder pickles without weights and reads them again where it wakes up.

    ## Versions

    v0: first.
    """

    def __init__(
        self,
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
    ) -> None:
        engine = WorldModelEngine(model, device)
        settings = Settings(
            bank=find_bank(starts, checkpoint.find(model) if isinstance(model, str | Path) else None),
            task=task,
            control=control,
            obs=obs,
            max_speed=max_speed,
            max_turn=max_turn,
            pitch_limit=pitch_limit,
            height_range=height_range,
            info_frames=info_frames,
            render_mode=render_mode,
            reliability=make_reliability(reliability, min_reliability),
        )
        super().__init__(engine, settings)

    @property
    def model(self) -> WorldModel:
        """The world model; environments of one process that name the same one share it."""
        return self.simulator.engine.model
