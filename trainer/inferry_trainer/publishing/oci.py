"""A model repository as an image of the OCI: layers of tar, and documents that name them by their sha256.

The digest is a function of what is published alone: entries in order, no times, owners or compression (weights hardly
compress, and compressors differ). Each version is a layer, so that a registry stores and a node pulls only new ones.
Two manifests, amd64 and arm64, name the same layers: a node takes the one that it is.
"""

import fcntl
import hashlib
import json
import os
import re
import tarfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from inferry_proto.manifest import ManifestError, read_manifest, verify_files
from inferry_trainer.errors import PublishError
from inferry_trainer.publishing.catalog import find_versions

PLATFORMS = ("amd64", "arm64")
MOST_LAYERS = 100  # overlay file systems mount some 120; the oldest versions share one beyond that

_TYPE = "application/vnd.oci.image"
_INDEX, _MANIFEST, _CONFIG, _LAYER = (
    f"{_TYPE}.index.v1+json", f"{_TYPE}.manifest.v1+json", f"{_TYPE}.config.v1+json", f"{_TYPE}.layer.v1.tar"
)  # fmt: skip
_NAME = "org.opencontainers.image.ref.name"
_WRITING = ".writing-"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

Document = dict[str, Any]


def publish_image(path: Path, layout: Path, tag: str) -> str:
    """Put a repository, or one of its models, into an image layout under a tag.

    Args:
        path: the repository or a model's folder.
        layout: the layout's folder, made where it is missing; images that it holds stay.
        tag: new, or one that has this very content already.

    Returns:
        The image's digest, `sha256:...`.

    Raises:
        PublishError: the tag is none or has another content; what is published is not what its manifest says.
    """
    if not _TAG.fullmatch(tag):
        raise PublishError(f"{tag!r} cannot be a tag; expected 1 to 128 of A-Z a-z 0-9 _ . -, the first no . or -")
    versions = find_versions(path)
    root = versions[0].parent.parent
    if versions[0] == path:
        raise PublishError(f"{path} is a version; expected its model's folder, {path.parent}, or the repository")
    _verify(versions)
    try:
        with _locked(layout):
            return _add(layout, root, versions, tag)
    except OSError as error:
        raise PublishError(f"{error.filename or layout}: {error.strerror or error}; nothing was tagged") from error


def _verify(versions: Sequence[Path]) -> None:
    for version in versions:
        try:
            manifest = read_manifest(version)
            if manifest is not None:
                verify_files(version, manifest)
        except ManifestError as error:
            raise PublishError(f"nothing was published: {error}") from error


def _add(layout: Path, root: Path, versions: Sequence[Path], tag: str) -> str:
    index = _index(layout)
    layers = [_layer(layout, root, members) for members in _layers(versions)]
    manifests = [_platform(layout, layers, architecture) for architecture in PLATFORMS]
    image = _put(layout, _document({"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}), _INDEX)
    for known in index["manifests"]:
        if known.get("annotations", {}).get(_NAME) == tag:
            if known["digest"] != image["digest"]:
                raise PublishError(
                    f"{layout} has the tag {tag} for {known['digest']}; choose another for {image['digest']}"
                )
            return str(image["digest"])
    index["manifests"].append({**image, "annotations": {_NAME: tag}})
    _write(layout / "oci-layout", _document({"imageLayoutVersion": "1.0.0"}))
    _write(layout / "index.json", _document(index))
    return str(image["digest"])


def _index(layout: Path) -> Document:
    path = layout / "index.json"
    if not path.exists():
        if any(one.name != "blobs" for one in layout.iterdir()):
            raise PublishError(f"{layout} is not empty and holds no image layout; choose another folder")
        return {"schemaVersion": 2, "mediaType": _INDEX, "manifests": []}
    try:
        found: Document = json.loads(path.read_bytes())
        if not isinstance(found["manifests"], list):
            raise TypeError("manifests is no list")
    except (ValueError, KeyError, TypeError) as error:
        raise PublishError(f"{path} is not the index of an image layout: {error}") from error
    return found


def _layers(versions: Sequence[Path]) -> list[list[Path]]:
    """The members of each layer, from the one that changes least: versions, then what lies beside them."""
    own = [[*_members(version)] for version in versions]
    old = own[: max(0, len(own) - MOST_LAYERS + 1)]
    beside = [
        path for model in dict.fromkeys(version.parent for version in versions)
        for path in sorted(model.iterdir()) if path.is_file() and not path.name.startswith(".")
    ]  # fmt: skip
    return [
        *([[path for members in old for path in members]] if old else []),
        *own[len(old) :],
        *([beside] if beside else []),
    ]


def _members(version: Path) -> Iterator[Path]:
    for path in sorted(version.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise PublishError(f"{path} is neither a file nor a folder; nothing was published")
        yield path


def _layer(layout: Path, root: Path, members: Sequence[Path]) -> Document:
    folders = {parent for path in members for parent in path.parents if parent != root and root in parent.parents}
    entries = sorted({*members, *folders})

    def write(file: IO[bytes]) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in entries:
                _append(tar, path, str(path.relative_to(root)))

    return _put_with(layout, write, _LAYER)


def _append(tar: tarfile.TarFile, path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    if path.is_dir():
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)
        return
    with path.open("rb") as file:
        entry.mode, entry.size = 0o644, os.fstat(file.fileno()).st_size
        tar.addfile(entry, file)


def _platform(layout: Path, layers: Sequence[Document], architecture: str) -> Document:
    config = {
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": _MANIFEST, "config": _put(layout, _document(config), _CONFIG), "layers": layers
    }  # fmt: skip
    return {**_put(layout, _document(manifest), _MANIFEST), "platform": {"architecture": architecture, "os": "linux"}}


def _document(content: Document) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


def _put(layout: Path, data: bytes, kind: str) -> Document:
    return _put_with(layout, lambda file: file.write(data), kind)


def _put_with(layout: Path, write: Any, kind: str) -> Document:
    """A blob under its digest, and what names it."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    beside = layout / f"{_WRITING}{uuid.uuid4().hex}"
    try:
        with beside.open("x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        beside.replace(blobs / digest)
    finally:
        beside.unlink(missing_ok=True)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}


def _write(path: Path, data: bytes) -> None:
    """The whole file or the one before."""
    beside = path.with_name(f"{_WRITING}{uuid.uuid4().hex}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _locked(layout: Path) -> Iterator[None]:
    """The layout for one publisher at a time; others wait."""
    layout.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(layout, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in layout.glob(f"{_WRITING}*"):
            left.unlink(missing_ok=True)  # of a process that was killed
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
