"""What a kustomization is made of, as a digest: folders with the same one render the same."""

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_LONGEST = 500  # characters of a path
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def digest(folder: Path) -> str | None:
    """Of a kustomization, in which the contents of files and folders stand for their names.

    Returns:
        None where kubectl is the one to say what is wrong with it.
    """
    with suppress(yaml.YAMLError, OSError, ValueError, RecursionError):
        return _digest(folder)
    return None


def _digest(folder: Path) -> str | None:
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        return None
    tree = _contents(folder, yaml.load(file.read_text(), _LOADER))  # noqa: S506 - a safe one
    return sha256(json.dumps(tree, default=str).encode()).hexdigest()


def _contents(folder: Path, tree: Any) -> Any:
    match tree:
        case dict():
            return {str(key): _contents(folder, value) for key, value in tree.items()}
        case list():
            return [_contents(folder, value) for value in tree]
        case str() if "\n" not in tree and len(tree) <= _LONGEST:
            return _content(folder, tree)
        case _:
            return tree


def _content(folder: Path, text: str) -> Any:
    """What a text names: a file, with the key that it is to have (`key=path`), or a folder; or the text."""
    key, _, path = text.rpartition("=")
    place = folder / path
    if path and place.is_file():
        return [key or place.name, sha256(place.read_bytes()).hexdigest()]
    found = _digest(place) if path and place.is_dir() else None
    return text if found is None else [key, found]
