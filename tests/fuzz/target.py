"""What is attacked: how its cases are made, and what must hold for each."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

Check = Callable[[bytes], bool]
"""Whether a case was accepted; False where it was refused by name. Whatever it raises is a finding."""


class FindingError(AssertionError):
    """The product did what it must not; says what was expected and what came."""


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: as `--target` says it.
        mutate: the bytes of a case, always the same for a seed.
        opened: what checks cases, with the folders and servers that it needs until it is left.
    """

    name: str
    mutate: Callable[[int], bytes]
    opened: Callable[[], AbstractContextManager[Check]]


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise FindingError(what)
