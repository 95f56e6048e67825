"""Rules between layers of kustomizations: a component does not take back what an overlay says, unsaid.

kustomize takes an overlay's resources first, then the settings that it generates, then its components, then its
patches. So components have the last word on settings, and on all that the kustomizations in `resources` said; nothing
tells.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from manifests.bundle import Bundle, Manifest, render
from manifests.made_of import FILES

_HASH = re.compile(r"-[2456789bcdfghkmt]{10}$")  # of kustomize's, whose alphabet makes no words
_GENERATED = ("ConfigMap", "Secret")
_GONE = "nothing"
_AFTER_COMPONENTS = (
    "patches", "patchesStrategicMerge", "patchesJson6902", "replicas", "images", "namespace", "labels",
)  # fmt: skip

Leaves = dict[tuple[str, ...], Any]


def override_faults(folder: Path) -> list[str]:
    """What components of a kustomization, or of one below it, change of what was said before them.

    Args:
        folder: with a kustomization.

    Raises:
        ValueError: a part of it does not render.
    """
    own = _read(folder)
    below = [path for one in own.get("resources", []) if (path := folder / one).is_dir()]
    found = [fault for path in below for fault in override_faults(path)]
    if own.get("components") and (_generators(own) or any(_is_layer(path) for path in below)):
        roots = list(dict.fromkeys(root for path in below for root in _roots(path)))
        base = [os.path.relpath(root, folder.resolve()) for root in roots]
        before = leaves(_render(folder, {"resources": base})) if base else {}
        lower = leaves(_render(folder, {"resources": own.get("resources", []), **_generators(own)}))
        together = {"resources": own.get("resources", []), **_generators(own), "components": own["components"]}
        upper = leaves(_render(folder, together))
        found += [f"{folder}: {fault}" for fault in _changes(before, lower, upper, said=_patches(folder, own))]
    return found


def _changes(before: Leaves, lower: Leaves, upper: Leaves, *, said: str) -> Iterator[str]:
    kept = {path[0] for path in upper}
    for path in sorted({*before, *lower}):
        was, now = lower.get(path, _GONE), upper.get(path, _GONE)
        is_scaled = path[1:] == ("spec", "replicas") and now == _GONE  # an autoscaler has the number
        is_taken_back = path[0] in kept and now != was != before.get(path, _GONE) and not is_scaled
        if is_taken_back and path[-1] not in said:
            yield (
                f"a component makes {now} of {path[0]}, {'/'.join(path[1:])}, which was set to {was} before: "
                "components come after an overlay's settings; a patch, which comes last, may say which is meant"
            )


def leaves(bundle: Bundle) -> Leaves:
    """Every scalar by its object and its path; elements of lists by their names, or the list as a whole."""
    found: Leaves = {}
    for one in bundle.objects:
        name = one["metadata"]["name"]
        name = _HASH.sub("", name) if one["kind"] in _GENERATED else name
        for path, value in _leaves(one):
            if path != ("metadata", "name"):
                found[(f"{one['kind']} {name}", *path)] = _plain(value)
    return found


def _leaves(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    match tree:
        case dict() if tree:
            for key, value in tree.items():
                yield from (((str(key), *path), leaf) for path, leaf in _leaves(value))
        case list() if tree and all(isinstance(one, dict) and "name" in one for one in tree):
            for one in tree:
                rest = {key: value for key, value in one.items() if key != "name"}
                yield from (((str(one["name"]), *path), leaf) for path, leaf in _leaves(rest))
        case _:
            yield (), tree


def _plain(value: Any) -> Any:
    """Without the hashes of generated names."""
    match value:
        case str():
            return _HASH.sub("", value)
        case list():
            return [_plain(one) for one in value]
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case _:
            return value


def _generators(own: Mapping[str, Any]) -> dict[str, Any]:
    return {key: own[key] for key in ("configMapGenerator", "secretGenerator", "generatorOptions") if own.get(key)}


def _patches(folder: Path, own: Mapping[str, Any]) -> str:
    """All that a kustomization says after its components."""
    after = {key: own[key] for key in _AFTER_COMPONENTS if key in own}
    listed = [one for key in _AFTER_COMPONENTS if key.startswith("patches") for one in own.get(key, [])]
    files = [one.get("path", "") if isinstance(one, dict) else one for one in listed]
    texts = [(folder / name).read_text() for name in files if "\n" not in name and (folder / name).is_file()]
    return "\n".join([yaml.safe_dump(after), *texts])


def _is_layer(folder: Path) -> bool:
    """Whether a kustomization is made on another one."""
    own = _read(folder)
    return any((folder / one).is_dir() for one in (*own.get("resources", []), *own.get("components", [])))


def _roots(folder: Path) -> list[Path]:
    """The kustomizations that everything is made on."""
    below = [folder / one for one in _read(folder).get("resources", []) if (folder / one).is_dir()]
    return [root for path in below for root in _roots(path)] or [folder.resolve()]


def _render(folder: Path, parts: Manifest) -> Bundle:
    """Parts of the kustomization of a folder, from a copy of it elsewhere."""
    with TemporaryDirectory() as name:
        here = Path(name).resolve()

        def moved(text: str) -> str:
            return os.path.relpath((folder / text).resolve(), here) if (folder / text).exists() else text

        own: Manifest = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
        for key, values in parts.items():
            match key:
                case "resources" | "components":
                    own[key] = [moved(one) for one in values]
                case "configMapGenerator" | "secretGenerator":
                    own[key] = [_moved_generator(one, moved) for one in values]
                case _:
                    own[key] = values
        (here / FILES[0]).write_text(yaml.safe_dump(own))
        return render(here, "--load-restrictor=LoadRestrictionsNone")


def _moved_generator(one: Manifest, moved: Callable[[str], str]) -> Manifest:
    found = dict(one)
    if "envs" in one:
        found["envs"] = [moved(name) for name in one["envs"]]
    if "files" in one:
        pairs = [name.partition("=") if "=" in name else (Path(name).name, "=", name) for name in one["files"]]
        found["files"] = [f"{key}={moved(path)}" for key, _, path in pairs]
    return found


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / _file(folder)).read_text()) or {}
    return {key: value or [] for key, value in found.items()}


def _file(folder: Path) -> str:
    for name in FILES:
        if (folder / name).is_file():
            return name
    raise ValueError(f"{folder} has no {FILES[0]}")
