"""SANA-WM as a pure function: a state and camera poses in, a state and frames out.

Names are imported from their modules (`from world_model.model import WorldModel`), so that reading a
config or an error does not load torch.
"""

import sys
from importlib.util import find_spec


def _require_our_kernels() -> None:
    """Raise ImportError when another distribution's `kernels` hides ours.

    Ours is a namespace portion (no kernels/__init__.py): installed, it lives beside a regular package of
    that name. A bare checkout on the path cannot, since Python prefers the regular package and then never
    looks here. Asking the finders about the child imports neither package.
    """
    parent = find_spec("kernels")
    path = parent.submodule_search_locations if parent is not None else None
    if path is not None and any(finder.find_spec("kernels.delta_rule", path) for finder in sys.meta_path):
        return
    found = f"the package {parent.origin or list(path or [])}" if parent is not None else "no such package"
    raise ImportError(
        f"world_model needs kernels.delta_rule of the distribution sanawm-env; expected it under `kernels`, "
        f"got {found}. Another distribution owns a regular package called kernels, and a checkout that is "
        f"merely on the path is hidden by it: install this one (`pip install -c constraints.txt -e .`), "
        f"which works beside the other."
    )


_require_our_kernels()
