"""Versions that arrive spoiled while the server polls: each is refused by name, and the next good one is served."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from chaos.models import MODEL, save_version
from chaos.scene import POLL, FaultError, Scene, Setup
from inferry_proto import signing
from testkit.signing_keys import make_keys

Spoil = Callable[[Path], object]


def _change_byte(version: Path) -> None:
    data = bytearray((version / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (version / "model.onnx").write_bytes(data)


def _cut(version: Path) -> None:
    data = (version / "model.onnx").read_bytes()
    (version / "model.onnx").write_bytes(data[: len(data) // 2])


def _link_out(version: Path) -> None:
    shutil.move(version / "model.onnx", version.parent.parent.parent / "elsewhere.onnx")
    (version / "model.onnx").symlink_to(version.parent.parent.parent / "elsewhere.onnx")


def _garbage(version: Path) -> None:
    (version / "model.onnx").write_bytes(bytes(range(256)) * 64)


SPOILED: Mapping[str, Spoil] = {
    "a changed byte": _change_byte,
    "a truncated model": _cut,
    "garbage for a model": _garbage,
    "no model": lambda version: (version / "model.onnx").unlink(),
    "no golden samples": lambda version: (version / "golden.npz").unlink(),
    "a manifest that is none": lambda version: (version / "manifest.json").write_text("{"),
}


def signed(folder: Path) -> Setup:
    """A server that serves what is signed."""
    keys = make_keys(folder, "key")
    return Setup(folder / "models", (*POLL, "--model-key", str(keys.public)), keys=keys)


def polling(folder: Path) -> Setup:
    """A server that serves what has checksums."""
    return Setup(folder / "models", POLL)


def send_spoiled(scene: Scene) -> str:
    """Every way to spoil a version without signatures."""
    return _send_all(scene, SPOILED)


def send_wrongly_signed(scene: Scene) -> str:
    """Every way to spoil a signed version."""
    other = make_keys(scene.folder, "other")
    first = scene.folder / "models" / MODEL / "1" / signing.VERSION_SIGNATURE

    def sign_with_other(version: Path) -> None:
        (version / signing.VERSION_SIGNATURE).unlink()
        signing.sign_version(version, other.private)

    return _send_all(scene, {
        **SPOILED,
        "a signature by another key": sign_with_other,
        "the signature of version 1": lambda version: shutil.copy(first, version / signing.VERSION_SIGNATURE),
        "no signature": lambda version: (version / signing.VERSION_SIGNATURE).unlink(),
        "half a signature": lambda version: _halve(version / signing.VERSION_SIGNATURE),
        "a file more": lambda version: (version / "more").write_text("more"),
        "a link out of the version": _link_out,
    })  # fmt: skip


def _halve(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _send_all(scene: Scene, ways: Mapping[str, Spoil]) -> str:
    """Spoiled versions, one after the other, then a good one, which must be served in the end."""
    number = 1
    for number, (what, spoil) in enumerate(ways.items(), start=2):
        failed = scene.loads("failed")
        _send(scene, number, spoil)
        scene.wait_for(lambda failed=failed: scene.loads("failed") > failed, f"refused: {what}")  # type: ignore[misc]
        if scene.serves(number) or not scene.serves(1):
            raise FaultError(f"{what}: version {number} is served, or version 1 no longer")
    scene.over()
    _send(scene, number + 1, lambda _: None)
    scene.wait_for(lambda: scene.serves(number + 1), "served: a version that is right")
    return f"{len(ways)} spoiled versions: {', '.join(ways)}"


def _send(scene: Scene, number: int, spoil: Spoil) -> None:
    """Made elsewhere, and moved into the repository."""
    version = save_version(scene.folder / "made", number, scene.setup.keys)
    spoil(version)
    version.rename(scene.folder / "models" / MODEL / str(number))
