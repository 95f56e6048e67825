"""Which versions of a model are to be served. Pure: what is there is passed in."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Latest:
    """The newest versions.

    Attributes:
        count: how many, at least 1.
    """

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"the policy latest serves {self.count} versions; expected at least 1")


@dataclass(frozen=True)
class All:
    """Every version."""


@dataclass(frozen=True)
class Specific:
    """These versions and no others.

    Attributes:
        versions: their numbers, at least one.
    """

    versions: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.versions or min(self.versions) < 1:
            raise ValueError(f"the policy specific names {list(self.versions)}; expected positive version numbers")


VersionPolicy = Latest | All | Specific
NEWEST = Latest()
"""What is served where nobody says otherwise."""


def versions_to_serve(policy: VersionPolicy, available: Iterable[int]) -> tuple[int, ...]:
    """The versions that a policy wants of those that are there, ascending.

    What a policy names and the repository lacks is left out: it may be published later.
    """
    versions = sorted(set(available))
    match policy:
        case Latest(count):
            return tuple(versions[-count:])
        case All():
            return tuple(versions)
        case Specific(wanted):
            return tuple(version for version in versions if version in wanted)
