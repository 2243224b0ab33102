"""Nested frozen dataclasses and tuples of tensors, as one value: map over them, name their leaves, build them back."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from torch import Tensor

from world_model.errors import StateError

T = TypeVar("T")


def map_tensors(fn: Callable[..., Tensor], first: T, *others: T) -> T:
    """fn of corresponding tensors, in a value of the same structure. What is no tensor must be equal everywhere."""
    if isinstance(first, Tensor):
        return fn(first, *others)
    if isinstance(first, tuple):
        return tuple(map_tensors(fn, *items) for items in zip(first, *others, strict=True))  # pyright: ignore
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [f.name for f in dataclasses.fields(first)]
        built = {n: map_tensors(fn, *(getattr(value, n) for value in (first, *others))) for n in names}
        return dataclasses.replace(first, **built)
    for other in others:
        if other != first:
            raise StateError(f"expected equal values in every part, got {first!r} and {other!r}")
    return first


def named_tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor under a dotted path: `window.0.blocks.1.keys`."""
    if isinstance(value, Tensor):
        return {name: value}
    if isinstance(value, tuple):
        items = [(str(i), item) for i, item in enumerate(value)]
    elif dataclasses.is_dataclass(value):
        items = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    else:
        return {}
    return {k: t for key, item in items for k, t in named_tensors(item, f"{name}.{key}".lstrip(".")).items()}


def build(kind: Any, tensors: dict[str, Tensor], others: dict[str, Any], name: str = "") -> Any:
    """The inverse of `named_tensors`: a value of type `kind`; `others` holds the fields that are no tensors.

    Raises KeyError for a path that is missing.
    """
    if kind is Tensor:
        return tensors[name]
    if get_origin(kind) is tuple:
        item, items = get_args(kind)[0], []
        while any(key == f"{name}.{len(items)}" or key.startswith(f"{name}.{len(items)}.") for key in tensors):
            items.append(build(item, tensors, others, f"{name}.{len(items)}"))
        return tuple(items)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind)]
        return kind(**{n: build(hints[n], tensors, others, f"{name}.{n}".lstrip(".")) for n in names})
    return others[name]
