"""What a policy is, and where policies come from: shipped ones by name, importable callables, files of learners.

| given as | is |
| --- | --- |
| `servo` | a shipped policy, see `sanawm_env.evaluate.shipped` |
| `module:name` | a callable from a picture to an action, or a `Policy` |
| `FILE.zip` | a model saved by Stable-Baselines3; `PPO:FILE.zip` names another algorithm than PPO |
| `FILE.pt` | TorchScript: pictures (1, H, W, 3) uint8 to actions (1, A) |
| `FILE.onnx` | the same as ONNX |
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from world_model.errors import BackendError, InputError

READS = ("pixels", "pose")
Actor = Callable[[Any], Any]


@runtime_checkable
class Policy(Protocol):
    """What evaluation asks of a policy. reads: "pixels", or "pose" for a privileged one.

    `begin` returns what acts in one episode: a callable from an observation (H, W, 3) uint8 to an action of the
    environment, or from `info` (with pose and goal) if the policy is privileged. All that a policy remembers belongs
    to it; all its randomness comes from the seed.
    """

    reads: str

    def begin(self, seed: int) -> Actor: ...


@dataclass(frozen=True)
class Plain:
    """A function from a picture (H, W, 3) uint8 to an action, without memory."""

    function: Actor
    reads = "pixels"

    def begin(self, seed: int) -> Actor:
        return self.function


@dataclass(frozen=True)
class Batched:
    """A function from pictures (1, H, W, 3) uint8 to actions (1, A)."""

    function: Actor
    reads = "pixels"

    def begin(self, seed: int) -> Actor:
        return lambda picture: np.asarray(self.function(picture[None]))[0]


def load_policy(text: str) -> Policy:
    """The policy of a name, `module:name` or file. Raises InputError, BackendError for a missing package."""
    from sanawm_env.evaluate.shipped import shipped

    known = shipped()
    if text in known:
        return known[text]
    left, _, right = text.rpartition(":")
    path = Path(right)
    if path.suffix in LOADERS:
        if not path.is_file():
            raise InputError(f"policy: expected an existing file, got {text!r}")
        return Batched(LOADERS[path.suffix](path, left or "PPO"))
    if left:
        return from_module(left, right)
    raise InputError(
        f"policy: expected one of {sorted(known)}, 'module:name', or a file that ends in {sorted(LOADERS)}, "
        f"got {text!r}"
    )


def from_module(module: str, name: str) -> Policy:
    """The policy that a module holds under a name. Raises InputError."""
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise InputError(f"policy: expected an importable module:name, got {module}:{name} ({error})") from error
    if isinstance(found, Policy) and not isinstance(found, type):
        if found.reads not in READS:
            raise InputError(f"policy {module}:{name}: reads: expected one of {READS}, got {found.reads!r}")
        return found
    if not callable(found) or isinstance(found, type):
        raise InputError(f"policy {module}:{name}: expected a function of a picture or a Policy, got {found!r}")
    return Plain(found)


def load_sb3(path: Path, algorithm: str) -> Actor:
    """A model saved by Stable-Baselines3, its deterministic action."""
    try:
        import stable_baselines3
    except ModuleNotFoundError as error:
        raise BackendError(f"{path}: expected stable-baselines3 (pip install 'sanawm-env[sb3]'), got none") from error
    if algorithm not in stable_baselines3.__all__:
        raise InputError(f"policy: expected an algorithm of Stable-Baselines3, such as PPO:{path}, got {algorithm!r}")
    model = getattr(stable_baselines3, algorithm).load(path, device="cpu")
    return lambda pictures: model.predict(pictures, deterministic=True)[0]


def load_torchscript(path: Path, _: str) -> Actor:
    """A TorchScript module on the CPU."""
    import torch

    module = torch.jit.load(str(path), map_location="cpu").eval()

    def act(pictures: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(pictures)).numpy()

    return act


def load_onnx(path: Path, _: str) -> Actor:
    """An ONNX graph with one input and one output."""
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise BackendError(f"{path}: expected onnxruntime (pip install 'sanawm-env[onnx]'), got none") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    return lambda pictures: session.run(None, {source.name: pictures})[0]


LOADERS: dict[str, Callable[[Path, str], Actor]] = {".zip": load_sb3, ".pt": load_torchscript, ".onnx": load_onnx}
