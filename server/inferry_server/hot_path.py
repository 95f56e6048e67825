"""Whether the modules that every request passes were compiled to C when the server was built, or run as Python."""

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

_ONE_OF_THEM = "inferry_server.batching.scheduler"  # `setup.py` compiles all of them or none


def hot_path() -> str:
    """`compiled` or `python`. Imports none of them."""
    spec = find_spec(_ONE_OF_THEM)
    is_compiled = spec is not None and str(spec.origin).endswith(tuple(EXTENSION_SUFFIXES))
    return "compiled" if is_compiled else "python"
