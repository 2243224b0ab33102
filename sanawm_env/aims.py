"""What scene and options give a task to aim at: from the options of `reset` to `Episode.aims`.

A task says by `options` what it reads, and by `pictures` which of that are pictures (`sanawm_env.tasks.Aimed`).
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sanawm_env.starts import Start
from sanawm_env.tasks import Aimed, Task
from world_model.config import WorldConfig
from world_model.errors import InputError
from world_model.images import fit_image


@runtime_checkable
class Encoder(Protocol):
    """An engine that can tell the latents of a picture."""

    def encode(self, picture: np.ndarray) -> np.ndarray:
        """(C, Y, X) float32 of a picture (H, W, 3) uint8 of the frames' size."""
        ...


def split_options(task: Task, options: Mapping[str, Any] | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The options of `reset` that a task reads, as arrays, and the others. Raises InputError for what is no array."""
    names = task.options if isinstance(task, Aimed) else ()
    mine, others = {}, {}
    for name, value in (options or {}).items():
        if name in names:
            mine[name] = np.array(value)
            if mine[name].dtype.kind not in "biuf":
                raise InputError(f"{name}: expected numbers, got {value!r}")
        else:
            others[name] = value
    return mine, others


def scene_aims(task: Task, start: Start, seed: int) -> dict[str, np.ndarray]:
    """What a start scene has for a task that reads goal views: one of them, by the world's seed."""
    if not isinstance(task, Aimed) or "goal_image" not in task.options or not start.goal_views:
        return {}
    view = start.goal_views[seed % len(start.goal_views)]
    return {"goal_image": view.image, "goal_pose": view.pose}


def fit_pictures(task: Task, aims: Mapping[str, np.ndarray], config: WorldConfig, engine: Any) -> dict[str, np.ndarray]:
    """Aims with their pictures made to fit the frame, and the latents of these where the engine has any."""
    fitted = dict(aims)
    for name in task.pictures if isinstance(task, Aimed) else ():
        if name in aims:
            size = config.tokenizer.height, config.tokenizer.width
            fitted[name] = fit_image(aims[name], None, size)[0].numpy()
            if isinstance(engine, Encoder):
                fitted[f"{name}_latent"] = engine.encode(fitted[name])
    return fitted
