"""The trees of errors that docstrings draw are those that there are."""

from types import ModuleType

import pytest

from inferry_client import errors as of_clients
from inferry_server import errors as of_the_server


def drawn(module: ModuleType) -> set[tuple[str, str]]:
    """Each class of a drawing and the one it is a kind of: the last of the nearest line that begins further left."""
    pairs, above = set(), list[tuple[int, str]]()
    for line in (module.__doc__ or "").splitlines():
        names = line.strip().split(", ")
        if not line.startswith("    ") or not all(name.isidentifier() for name in names):
            continue
        depth = len(line) - len(line.lstrip())
        above = [(left, name) for left, name in above if left < depth]
        pairs |= {(name, above[-1][1] if above else "Exception") for name in names}
        above.append((depth, names[-1]))
    return pairs


@pytest.mark.parametrize("module", [of_the_server, of_clients], ids=["server", "clients"])
def test_the_tree_of_errors_is_drawn_as_it_is(module: ModuleType) -> None:
    errors = [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Exception) and one.__module__ == module.__name__
    ]
    assert drawn(module) == {(one.__name__, str(one.__base__ and one.__base__.__name__)) for one in errors}
