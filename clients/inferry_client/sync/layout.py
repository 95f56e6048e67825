"""What the objects of a store are in a model repository: `<model>/<version>/<file>`, and files beside the versions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LEAST_PARTS = 2  # a model and a file of it


@dataclass(frozen=True)
class StoredObject:
    """One object.

    Attributes:
        path: from the repository's root, as the store has it.
        size_bytes: as listed.
        tag: changes with the contents; empty where the store tells none.
    """

    path: str
    size_bytes: int
    tag: str


@dataclass
class StoredModel:
    """A model's objects.

    Attributes:
        versions: objects of each version by their path in it.
        files: objects beside the versions by name.
    """

    versions: dict[str, dict[str, StoredObject]] = field(default_factory=dict)
    files: dict[str, StoredObject] = field(default_factory=dict)


def read_layout(objects: Iterable[StoredObject]) -> dict[str, StoredModel]:
    """The models by name; what has no place in a repository is passed over.

    A path is taken only if each of its parts is a plain name, so that no object is written outside the copy.
    """
    models: dict[str, StoredModel] = {}
    for one in objects:
        model, *rest = one.path.split("/")
        if len(rest) + 1 < _LEAST_PARTS or not _MODEL.fullmatch(model) or not all(map(_is_plain, rest)):
            continue
        stored = models.setdefault(model, StoredModel())
        if len(rest) == 1:
            stored.files[rest[0]] = one
        elif _is_version(rest[0]):
            stored.versions.setdefault(rest[0], {})["/".join(rest[1:])] = one
    return models


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _is_plain(part: str) -> bool:
    """Whether a part is a plain name: neither a way out of the copy nor, by a dot in front, its writer's own file."""
    return bool(part) and not part.startswith(".") and not set(part) & {"\\", "\0"}  # guard: paths-sync-parts


def differences(here: Mapping[str, int], stored: Mapping[str, StoredObject]) -> list[str]:
    """The paths in a version whose presence or size is another in the copy.

    Args:
        here: sizes of the copy's files by path.
        stored: the objects by path.
    """
    sizes = {path: one.size_bytes for path, one in stored.items()}
    return sorted(path for path in {*here, *sizes} if here.get(path) != sizes.get(path))
