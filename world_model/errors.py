"""What can go wrong at the public edges: every message says what was expected and what came."""


class SanaWMError(ValueError):
    """The root of all errors that this project raises on purpose."""


class InputError(SanaWMError):
    """An image, action, pose, intrinsics or argument that no world can accept."""


class CheckpointError(SanaWMError):
    """Weights that are missing, misshapen, truncated or of an unknown name."""


class StateError(SanaWMError):
    """A world state of another format, another model, consumed, or used out of order."""


class EpisodeError(SanaWMError):
    """An episode on disk that is incomplete, corrupt or of another format version."""


class BackendError(SanaWMError):
    """A backend that was asked for by name and is not available here."""


def require(condition: bool, message: str) -> None:
    """Raise InputError unless the condition holds."""
    if not condition:
        raise InputError(message)


def require_positive(config: object) -> None:
    """Every number among the fields of a dataclass is above zero."""
    for name, value in vars(config).items():
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        require(not numeric or value > 0, f"{name}: expected a positive number, got {value}")


def require_one_of(name: str, value: str, *choices: str) -> None:
    require(value in choices, f"{name}: expected one of {choices}, got {value!r}")
