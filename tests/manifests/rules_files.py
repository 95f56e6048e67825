"""Rules of files: what a setting names is on a mount that can have it, or in the image."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import PurePosixPath
from typing import Any

from inferry_server.settings.settings import Settings
from manifests.bundle import Bundle, Manifest, Template
from manifests.rules_references import keys_of

IMAGE_FOLDERS = ("/etc/ssl/certs",)  # of the images' own: the authorities that Debian believes
KSERVE_MODELS = "/mnt/models"


def file_faults(bundle: Bundle, template: Template, container: Manifest, settings: Settings) -> Iterator[str]:
    """A repository that is not mounted, and files of settings that can be nowhere.

    Args:
        bundle: with the ConfigMaps and Secrets behind the mounts.
        template: the pod.
        container: of the server.
        settings: that it reads.
    """
    yield from _repository_faults(template, container, settings)
    for name, path in named_files(settings).items():
        if fault := _absent(bundle, template, container, path):
            yield f"setting {name} is {path}, and {fault}"


def named_files(settings: Settings) -> dict[str, PurePosixPath]:
    """The files that settings name, by setting."""
    named = {one.name: getattr(settings, one.name) for one in fields(settings) if one.name != "repository"}
    return {name: PurePosixPath(value) for name, value in named.items() if isinstance(value, PurePosixPath)}


def _repository_faults(template: Template, container: Manifest, settings: Settings) -> Iterator[str]:
    mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", [])}
    repository = str(settings.repository)
    if template.is_kserves:
        if repository != KSERVE_MODELS:
            yield f"the repository is {repository}, and KServe puts models into {KSERVE_MODELS}"
    elif repository not in mounts:
        yield f"the repository is {repository}, and nothing is mounted there but at {sorted(mounts)}"
    elif not mounts[repository].get("readOnly"):
        yield f"the repository {repository} is mounted writable"
    elif (volume := _volume(template, mounts[repository])) is not None and _stays_empty(template, volume, container):
        yield f"the repository {repository} is an emptyDir, and no other container writes into it"


def _absent(bundle: Bundle, template: Template, container: Manifest, path: PurePosixPath) -> str:
    """Why no file can be there; empty: one can."""
    if any(path.is_relative_to(folder) for folder in IMAGE_FOLDERS):
        return ""
    mounts = [one for one in container.get("volumeMounts", []) if path.is_relative_to(one["mountPath"])]
    if template.is_kserves and path.is_relative_to(KSERVE_MODELS):
        return ""
    if not mounts:
        return "nothing is mounted there"
    mount = max(mounts, key=lambda one: len(PurePosixPath(one["mountPath"]).parts))
    volume = _volume(template, mount)
    if volume is None:
        return ""  # `reference_faults` tells, or a claim of a StatefulSet's own
    inside = path.relative_to(mount["mountPath"])
    if inside == PurePosixPath() and "subPath" not in mount:
        return f"that is the folder where {volume['name']} is mounted"
    if _stays_empty(template, volume, container):
        return f"the volume {volume['name']} there is an emptyDir into which no other container writes"
    if (mode := _mode(volume)) is not None and not mode & 0o4 and not _has_group(template):
        return (
            f"the volume {volume['name']} gives its files the mode {mode:04o}: root's alone, and the server is not root"
        )
    known = _file_names(bundle, volume)
    wanted = PurePosixPath(mount.get("subPath", "")) / inside
    if known is not None and str(wanted) not in known:
        return f"the volume {volume['name']} there has {', '.join(sorted(known)) or 'nothing'}"
    return ""


def _mode(volume: Manifest) -> int | None:
    """Of a Secret's or ConfigMap's files, which are root's; None: as Kubernetes has it, readable by all."""
    for field in ("secret", "configMap", "projected"):
        if "defaultMode" in volume.get(field, {}):
            return int(volume[field]["defaultMode"])
    return None


def _has_group(template: Template) -> bool:
    """Whether the kubelet gives files to a group of the pod's."""
    return "fsGroup" in template.spec.get("securityContext", {})


def _volume(template: Template, mount: Manifest) -> Manifest | None:
    return next((one for one in template.spec.get("volumes", []) if one["name"] == mount["name"]), None)


def _stays_empty(template: Template, volume: Manifest, container: Manifest) -> bool:
    writers = [
        one
        for one in template.containers
        for mount in one.get("volumeMounts", [])
        if one is not container and mount["name"] == volume["name"] and not mount.get("readOnly")
    ]
    return "emptyDir" in volume and not writers


def _file_names(bundle: Bundle, volume: Manifest) -> set[str] | None:
    """The files of a ConfigMap or Secret, by the paths that the volume gives them; None: nobody here knows."""
    sources = volume.get("projected", {}).get("sources", []) or [volume]
    found: set[str] = set()
    for source in sources:
        known = _of_source(bundle, source)
        if known is None:
            return None
        found |= known
    return found


def _of_source(bundle: Bundle, source: dict[str, Any]) -> set[str] | None:
    for kind, field in (("ConfigMap", "configMap"), ("Secret", "secret")):
        if field in source:
            named = source[field]
            if "items" in named:
                return {item["path"] for item in named["items"]}
            return keys_of(bundle, kind, named.get("secretName") or named.get("name", ""))
    return None
