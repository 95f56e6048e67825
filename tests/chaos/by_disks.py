"""Disks that are full or read-only, and a repository that is gone for a while.

The disks are the server's own: it runs in a mount namespace with a small one in it.
"""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from chaos.models import MODEL, save_version
from chaos.scene import POLL, FaultError, Scene, Setup
from testkit.signing_keys import make_keys

_POLLS_S = 2.0  # several looks of the server at its repository
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--propagation", "private")


def missing() -> str:
    """Why there can be no disk of a server's own."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "unshare and nsenter of util-linux are not installed"
    tried = subprocess.run([*_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


def small_temporary(folder: Path) -> Setup:
    """A server that verifies signatures, whose private copies have little room."""
    keys = make_keys(folder, "key")
    small = folder / "small"
    small.mkdir()
    process = {"launcher": _with_disk(small), "environment": {"TMPDIR": str(small)}}
    return Setup(folder / "models", (*POLL, "--model-key", str(keys.public)), process, keys=keys)


def fill_temporary(scene: Scene) -> str:
    """No room for a private copy when a signed version comes; it is served once there is room."""
    filler = _seen(scene, scene.folder / "small" / "filler")
    _fill(filler)
    failed = scene.loads("failed")
    save_version(scene.folder / "models", 2, scene.setup.keys)
    scene.wait_for(lambda: scene.loads("failed") > failed, "counted as a failed load: a version that has no room")
    time.sleep(_POLLS_S)
    filler.unlink()
    scene.over()
    scene.wait_for(lambda: scene.serves(2), "served: version 2, for which there is room now")
    return "the folder of verified copies is full while a signed version comes"


def silent_log(folder: Path) -> Setup:
    """A server whose log is a disk that is always full."""
    return Setup(folder / "models", (*POLL, "--log-level", "debug"), {"log": Path("/dev/full")})


def fill_log(scene: Scene) -> str:
    """Every line of the log fails with ENOSPC while versions come, good ones and bad ones."""
    broken = scene.folder / "models" / MODEL / "2"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"no model")
    scene.wait_for(lambda: scene.loads("failed") > 0, "counted: a version that is no model")
    scene.over()
    save_version(scene.folder / "models", 3)
    scene.wait_for(lambda: scene.serves(3), "served: version 3")
    return "the log cannot be written (ENOSPC) while versions come"


def own_repository(folder: Path) -> Setup:
    """A server whose repository is a small disk, filled from `models` as it starts."""
    disk = folder / "disk"
    disk.mkdir()
    return Setup(disk, POLL, {"launcher": _with_disk(disk, copy_of=folder / "models")})


def fill_repository(scene: Scene) -> str:
    """A trainer publishes to a full disk: nothing of it is there; with room, it publishes and the server follows."""
    filler = _seen(scene, scene.setup.repository / "filler")
    _fill(filler)
    _expect_refused(scene, errno.ENOSPC)
    filler.unlink()
    scene.over()
    return _publish_and_follow(scene, "a trainer publishes to a full disk, and again to one with room")


def lock_repository(scene: Scene) -> str:
    """The repository turns read-only, as a disk does that has errors."""
    _inside(scene, "mount", "-o", "remount,ro", str(scene.setup.repository))
    _expect_refused(scene, errno.EROFS)
    time.sleep(_POLLS_S)
    _inside(scene, "mount", "-o", "remount,rw", str(scene.setup.repository))
    scene.over()
    return _publish_and_follow(scene, "the repository turns read-only, a trainer publishes meanwhile and afterwards")


def polling(folder: Path) -> Setup:
    """A server that follows its repository."""
    return Setup(folder / "models", POLL)


def take_repository_away(scene: Scene) -> str:
    """The repository's folder is gone for some looks, comes back, and has a new version."""
    models, away = scene.folder / "models", scene.folder / "away"
    models.rename(away)
    time.sleep(_POLLS_S)
    away.rename(models)
    scene.over()
    save_version(models, 2)
    scene.wait_for(lambda: scene.serves(2), "served: version 2, after the repository came back")
    return f"the repository's folder is gone for {_POLLS_S:g} s while the server polls"


def _with_disk(mount_point: Path, *, copy_of: Path | None = None) -> tuple[str, ...]:
    copy = f"cp -r {copy_of}/. {mount_point} &&" if copy_of else ""
    script = f'mount -t tmpfs -o size=2m tmpfs {mount_point} && {copy} exec "$@"'
    return (*_NAMESPACE, "sh", "-c", script, "sh")


def _seen(scene: Scene, path: Path) -> Path:
    """A path as the server sees it, from here."""
    return Path(f"/proc/{scene.server.pid}/root{path}")


def _fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def _inside(scene: Scene, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with the server's mounts."""
    enter = ["nsenter", "--target", str(scene.server.pid), "--user", "--mount", "--preserve-credentials", "--wd=/"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run([*enter, *command], capture_output=True, text=True, check=False, env=environment)


def _publish(scene: Scene) -> "subprocess.CompletedProcess[str]":
    made = scene.folder / "models" / MODEL / "1"
    return _inside(scene, sys.executable, "-m", "chaos.publisher", str(scene.setup.repository), MODEL, str(made))


def _expect_refused(scene: Scene, reason: int) -> None:
    published = _publish(scene)
    if published.returncode != 1 or os.strerror(reason) not in published.stderr:
        raise FaultError(
            f"publishing ended with {published.returncode}: {published.stderr}; expected {os.strerror(reason)}"
        )
    left = sorted(path.name for path in _seen(scene, scene.setup.repository / MODEL).iterdir())
    if left != ["1"]:
        raise FaultError(f"publishing failed and left {left}; expected ['1']")


def _publish_and_follow(scene: Scene, what: str) -> str:
    published = _publish(scene)
    if published.returncode:
        raise FaultError(f"publishing failed: {published.stderr}")
    scene.wait_for(lambda: scene.serves(2), "served: version 2")
    return what
