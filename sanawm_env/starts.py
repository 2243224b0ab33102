"""Start scenes: where an episode begins. A bank of them on disk, and the user's own by `reset(options=...)`.

A bank is a folder of two or three files, format version 1:

    starts.json          format, version, and of each scene: name, prompt, intrinsics, goal, meta
    starts.safetensors   images (N, H, W, 3) uint8
    goals.safetensors    may be absent: views of the scenes from elsewhere, see `sanawm_env.goal_views`

intrinsics: fx, fy, cx, cy in pixels of the image; goal: (3,) metres in the start camera's axes (x right, y down,
z forward), or null; meta: JSON values about the origin, those of a rendered room lead back to it (`places.py`). Every
model folder may hold a bank in `starts/`.

`python -m sanawm_env.make_starts` writes a bank of rendered rooms.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sanawm_env.goal_views import GoalView, read_goal_views
from world_model.checkpoint import ASSETS
from world_model.errors import InputError
from world_model.images import DEFAULT_FIELD_OF_VIEW

FORMAT = "sanawm-starts"
VERSION = 1
OPTIONS = ("goal", "image", "intrinsics", "prompt", "scene", "twin")
DEFAULT_LENS = f"default: {math.degrees(DEFAULT_FIELD_OF_VIEW):.0f} degrees horizontal field of view"


@dataclass(frozen=True, kw_only=True)
class Start:
    """image (H, W, 3) uint8; intrinsics (4,) float32 in its pixels, or None for the default; goal (3,) float64."""

    name: str
    image: np.ndarray
    prompt: str = ""
    intrinsics: np.ndarray | None = None
    goal: np.ndarray | None = None
    meta: dict = field(default_factory=dict)
    goal_views: tuple[GoalView, ...] = ()

    def __post_init__(self) -> None:
        image, lens, goal = self.image, self.intrinsics, self.goal
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 8:
            raise InputError(
                f"{self.name}: image: expected (H, W, 3) uint8 of 8x8 pixels or more, got {image.shape} {image.dtype}"
            )
        if not isinstance(self.prompt, str):
            raise InputError(f"{self.name}: prompt: expected text, got {self.prompt!r}")
        if lens is not None and (lens.shape != (4,) or not np.isfinite(lens).all() or (lens[:2] <= 0).any()):
            raise InputError(
                f"{self.name}: intrinsics: expected finite (4,) fx, fy, cx, cy in pixels with positive focal lengths, "
                f"got {lens.tolist()}"
            )
        if goal is not None and (goal.shape != (3,) or not np.isfinite(goal).all()):
            raise InputError(
                f"{self.name}: goal: expected finite (3,) metres in the start camera's axes, got {goal.tolist()}"
            )

    @property
    def intrinsics_source(self) -> str:
        """Where the intrinsics come from, in words."""
        return DEFAULT_LENS if self.intrinsics is None else "given"


@runtime_checkable
class Viewpoint(Protocol):
    """An environment whose current view others can start from, as the twin is."""

    def current_start(self) -> Start: ...


def find_bank(starts: str | Path | None, folder: Path | None) -> tuple[Start, ...]:
    """The bank to draw from: a folder named by the user, or that of the model's folder, or the shipped one.

    Empty when none was named and none is there. Raises InputError for a bank that is broken, or named and absent.
    """
    if starts is not None:
        return read_starts(Path(starts))
    for bank in (folder and folder / "starts", ASSETS / "nano" / "starts"):
        if bank and (bank / "starts.json").exists():
            return read_starts(bank)
    return ()


def read_starts(folder: Path) -> tuple[Start, ...]:
    """Every scene of a bank. Raises InputError for a missing or broken file, another version, or unusable values."""
    path = folder / "starts.json"
    try:
        header = json.loads(path.read_text())
        images = load_file(folder / "starts.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder}: expected starts.json and starts.safetensors, got: {error}") from error
    got = (header.get("format"), header.get("version")) if isinstance(header, dict) else type(header).__name__
    if got != (FORMAT, VERSION):
        raise InputError(f"{path}: expected format and version {(FORMAT, VERSION)}, got {got}")
    scenes, pictures = header.get("scenes"), images.get("images")
    if not scenes or pictures is None or len(pictures) != len(scenes):
        count = None if pictures is None else len(pictures)
        raise InputError(f"{folder}: expected as many images as scenes, got {len(scenes or ())} and {count}")
    keys = {"name", "prompt", "intrinsics", "goal", "meta"}
    for scene in scenes:
        if set(scene) != keys:
            raise InputError(f"{path}: expected scenes with {sorted(keys)}, got {sorted(scene)}")
    if len({scene["name"] for scene in scenes}) < len(scenes):
        raise InputError(f"{path}: expected names that differ, got {[scene['name'] for scene in scenes]}")
    return tuple(
        Start(
            name=scene["name"],
            image=picture,
            prompt=scene["prompt"],
            intrinsics=_numbers("intrinsics", scene["intrinsics"], np.float32),
            goal=_numbers("goal", scene["goal"], np.float64),
            meta=scene["meta"],
            goal_views=views,
        )
        for scene, picture, views in zip(scenes, pictures, read_goal_views(folder, len(scenes)), strict=True)
    )


def write_starts(folder: Path, starts: Sequence[Start]) -> None:
    """Write a bank. Its images must be of one size. Raises InputError."""
    if not starts or len({start.image.shape for start in starts}) != 1:
        sizes = sorted({start.image.shape for start in starts})
        raise InputError(f"starts: expected at least one, with images of one size, got sizes {sizes}")
    scenes = [
        {
            "name": start.name,
            "prompt": start.prompt,
            "intrinsics": None if start.intrinsics is None else start.intrinsics.tolist(),
            "goal": None if start.goal is None else start.goal.tolist(),
            "meta": start.meta,
        }
        for start in starts
    ]
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"images": np.stack([start.image for start in starts])}, folder / "starts.safetensors")
    header = {"format": FORMAT, "version": VERSION, "scenes": scenes}
    (folder / "starts.json").write_text(json.dumps(header, indent=1) + "\n")


def choose_start(options: Mapping[str, Any] | None, bank: Sequence[Start], rng: np.random.Generator) -> Start:
    """What `reset(options=...)` asks for: the user's own image, a twin's view, a scene of the bank, or any of it.

    Raises InputError for unknown options, options that exclude each other, and unusable values.
    """
    options = dict(options or {})
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise InputError(f"options: expected keys out of {list(OPTIONS)}, got {unknown}")
    sources = [name for name in ("image", "scene", "twin") if name in options]
    if len(sources) > 1:
        raise InputError(f"options: expected {' or '.join(map(repr, sources))}, got both")
    if "image" in options:
        start = Start(name="image", image=_picture(options["image"]))
    elif "intrinsics" in options:
        raise InputError("options: expected 'intrinsics' together with 'image', got them alone")
    elif "twin" in options:
        start = _view(options["twin"])
    else:
        start = _scene(options.get("scene"), bank, rng)
    return Start(
        name=start.name,
        image=start.image,
        prompt=options.get("prompt", start.prompt),
        intrinsics=_numbers("intrinsics", options.get("intrinsics", start.intrinsics), np.float32),
        goal=_numbers("goal", options.get("goal", start.goal), np.float64),
        meta=start.meta,
        goal_views=start.goal_views,
    )


def _scene(scene: int | str | None, bank: Sequence[Start], rng: np.random.Generator) -> Start:
    if not bank:
        raise InputError("reset: expected a bank of start scenes or options['image'], got neither")
    if scene is None:
        return bank[int(rng.integers(len(bank)))]
    if isinstance(scene, str):
        for start in bank:
            if start.name == scene:
                return start
    elif isinstance(scene, int | np.integer) and not isinstance(scene, bool) and 0 <= scene < len(bank):
        return bank[scene]
    names = [start.name for start in bank]
    raise InputError(f"scene: expected an index below {len(bank)} or one of {names}, got {scene!r}")


def _view(twin: Any) -> Start:
    inner = twin.unwrapped if isinstance(twin, gym.Env) else twin
    if not isinstance(inner, Viewpoint):
        raise InputError(f"twin: expected an environment with current_start, such as SanaWMTwin-v0, got {twin!r}")
    return inner.current_start()


def _picture(image: Any) -> np.ndarray:
    picture = np.array(image)
    if picture.dtype != np.uint8 or picture.ndim != 3:
        raise InputError(f"image: expected (H, W, 3) uint8, got {picture.shape} {picture.dtype}")
    return picture


def _numbers(name: str, values: Any, dtype: type[np.floating]) -> np.ndarray | None:
    if values is None:
        return None
    try:
        return np.array(values, dtype)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected numbers, got {values!r}") from error
