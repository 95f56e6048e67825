"""Reading, writing and checking `manifest.json`, the word of the trainer to the server."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import json_format

from inferry_proto.files import read_text
from inferry_proto.manifest_pb2 import File, ModelManifest

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1
_CHUNK_BYTES = 1 << 20


class ManifestError(ValueError):
    """A manifest that cannot be read, or files that are not what it says."""


def read_manifest(version_folder: Path) -> ModelManifest | None:
    """The manifest of a published version, or None where there is none.

    Raises:
        ManifestError: not JSON, a field or a format version that is not known here.
    """
    path = version_folder / MANIFEST_FILE
    try:
        text = read_text(path)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from error
    try:
        manifest = json_format.Parse(text, ModelManifest())
    except json_format.ParseError as error:
        raise ManifestError(f"{path} is not a model manifest: {error}") from error
    if manifest.format_version != FORMAT_VERSION:
        raise ManifestError(
            f"{path} has format_version {manifest.format_version}; this version of Inferry reads {FORMAT_VERSION}"
        )
    return manifest


def write_manifest(version_folder: Path, manifest: ModelManifest) -> None:
    """Write `manifest.json` into a version's folder."""
    text = json_format.MessageToJson(manifest, preserving_proto_field_name=True)
    (version_folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def describe_file(path: Path) -> File:
    """Name, size and sha256 of a file, as a manifest records them."""
    return File(name=path.name, size_bytes=path.stat().st_size, sha256=_sha256(path))


def verify_files(version_folder: Path, manifest: ModelManifest, read: Mapping[str, bytes] | None = None) -> None:
    """Check that every file the manifest lists is there, byte for byte.

    Args:
        version_folder: holds the files.
        manifest: lists them.
        read: files that were read already, by name: their bytes are checked, whatever lies there now.

    Raises:
        ManifestError: a file is missing, has another size or checksum, or lies elsewhere.
    """
    for expected in manifest.files:
        if Path(expected.name).name != expected.name:  # guard: paths-manifest-lists
            raise ManifestError(f"{version_folder / MANIFEST_FILE} lists {expected.name!r}; expected a plain file name")
        path = version_folder / expected.name
        actual = _describe_bytes(expected.name, read) if read and expected.name in read else _look_at(path, expected)
        if actual != expected:  # guard: proof-checksum-file
            raise ManifestError(
                f"{path} was changed after it was published: expected {expected.size_bytes} bytes with "
                f"sha256 {expected.sha256}, found {actual.size_bytes} bytes with sha256 {actual.sha256 or '?'}"
            )


def _describe_bytes(name: str, read: Mapping[str, bytes]) -> File:
    return File(name=name, size_bytes=len(read[name]), sha256=hashlib.sha256(read[name]).hexdigest())


def _look_at(path: Path, expected: File) -> File:
    """A file as it is; without a checksum where its size shows that it is another."""
    try:
        if not path.is_file():
            raise ManifestError(f"{path} is missing; the manifest lists it with {expected.size_bytes} bytes")
        size_bytes = path.stat().st_size
        return describe_file(path) if size_bytes == expected.size_bytes else File(name=path.name, size_bytes=size_bytes)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
