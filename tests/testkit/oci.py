"""The rules of the OCI's image specification 1.1 for image layouts, as far as they touch an image without programs."""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TYPE = "application/vnd.oci.image"
_REFERENCE = re.compile(r"[A-Za-z0-9]+([-._:@+]|--)?[A-Za-z0-9._:@/+-]*")


def faults(layout: Path) -> Iterator[str]:
    """What is against the specification, a sentence each."""
    if json.loads((layout / "oci-layout").read_bytes()) != {"imageLayoutVersion": "1.0.0"}:
        yield "oci-layout has another version"
    for blob in (layout / "blobs").rglob("*"):
        if blob.is_file() and hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
            yield f"blob {blob.name} has other contents"
    index = json.loads((layout / "index.json").read_bytes())
    yield from _index_faults(layout, index)
    for one in index["manifests"]:
        name = one.get("annotations", {}).get("org.opencontainers.image.ref.name", "")
        if not _REFERENCE.fullmatch(name):
            yield f"the reference {name!r} is none"


def image(layout: Path, tag: str, architecture: str = "amd64") -> tuple[dict[str, Any], list[Path]]:
    """The configuration and the layers of an image, as a runtime would find them."""
    index = json.loads((layout / "index.json").read_bytes())
    (named,) = [one for one in index["manifests"] if one["annotations"]["org.opencontainers.image.ref.name"] == tag]
    wanted = {"architecture": architecture, "os": "linux"}
    (manifest,) = [one for one in _read(layout, named)["manifests"] if one["platform"] == wanted]
    document = _read(layout, manifest)
    return _read(layout, document["config"]), [_blob(layout, one) for one in document["layers"]]


def extract(layout: Path, tag: str, folder: Path) -> None:
    """What a mount of the image shows, layer over layer."""
    for layer in image(layout, tag)[1]:
        with tarfile.open(layer) as tar:
            tar.extractall(folder, filter="fully_trusted")  # noqa: S202 - made by a test


def _index_faults(layout: Path, index: dict[str, Any]) -> Iterator[str]:
    if index["schemaVersion"] != 2 or index.get("mediaType", f"{_TYPE}.index.v1+json") != f"{_TYPE}.index.v1+json":
        yield "an index is none"
    for one in index["manifests"]:
        yield from _descriptor_faults(layout, one)
        match one["mediaType"]:
            case "application/vnd.oci.image.index.v1+json":
                yield from _index_faults(layout, _read(layout, one))
            case "application/vnd.oci.image.manifest.v1+json":
                yield from _manifest_faults(layout, _read(layout, one), one.get("platform"))
            case other:
                yield f"{other} is nothing that an index names"


def _manifest_faults(layout: Path, manifest: dict[str, Any], platform: dict[str, str] | None) -> Iterator[str]:
    if manifest["schemaVersion"] != 2 or manifest["config"]["mediaType"] != f"{_TYPE}.config.v1+json":
        yield "a manifest is none"
    for one in (manifest["config"], *manifest["layers"]):
        yield from _descriptor_faults(layout, one)
    config = _read(layout, manifest["config"])
    if not config["architecture"] or not config["os"]:
        yield "a configuration names no platform"
    if platform and (config["architecture"], config["os"]) != (platform["architecture"], platform["os"]):
        yield "a configuration is for another platform than its manifest"
    if config["rootfs"]["type"] != "layers" or len(config["rootfs"]["diff_ids"]) != len(manifest["layers"]):
        yield "rootfs does not list the layers"
    for layer, known in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        if layer["mediaType"] != f"{_TYPE}.layer.v1.tar" or layer["digest"] != known:
            yield "an uncompressed layer's diff_id is its digest"
        yield from _layer_faults(_blob(layout, layer))


def _layer_faults(layer: Path) -> Iterator[str]:
    with tarfile.open(layer) as tar:
        names = tar.getnames()
        if len(set(names)) != len(names):
            yield "a layer has an entry twice"
        for entry in tar.getmembers():
            parts = entry.name.split("/")
            if entry.name.startswith("/") or ".." in parts or any(part.startswith(".wh.") for part in parts):
                yield f"{entry.name} is no place in a layer"
            if "/" in entry.name and entry.name.rpartition("/")[0] not in names:
                yield f"the folder of {entry.name} is in no entry, and gets a mode by chance"


def _descriptor_faults(layout: Path, one: dict[str, Any]) -> Iterator[str]:
    if not _DIGEST.fullmatch(one["digest"]) or not _blob(layout, one).is_file():
        yield f"{one['digest']} is no blob"
    elif _blob(layout, one).stat().st_size != one["size"]:
        yield f"{one['digest']} has another size"


def _blob(layout: Path, one: dict[str, Any]) -> Path:
    digest: str = one["digest"]
    return layout / "blobs" / digest.replace(":", "/")


def _read(layout: Path, one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_blob(layout, one).read_bytes())
    return found
