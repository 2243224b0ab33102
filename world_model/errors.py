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
