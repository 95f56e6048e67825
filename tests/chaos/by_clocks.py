"""The machine's clock jumps: hours ahead, a day back."""

import sys
import time
from pathlib import Path

from chaos.models import save_version
from chaos.scene import POLL, Scene, Setup

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
_JUMPS_S = (3600, -86_400, 30, 10_000_000, 0)
_BETWEEN_S = 3.0
_EXACT_S = 10.0


def missing() -> str:
    """Why no clock can jump."""
    return "" if _LIBRARIES else "libfaketime is not installed (Debian: apt-get install libfaketime)"


def movable(folder: Path) -> Setup:
    """A server whose wall clock follows a file; the monotonic clock is the machine's, as after a real jump."""
    clock = folder / "clock"
    clock.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(_LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    process = {"environment": environment, "program": (sys.executable, "-m", "chaos.under_faketime")}
    return Setup(folder / "models", POLL, process)


def jump(scene: Scene) -> str:
    """Ahead, back, a little, far, and home again; a version that comes then is served."""
    for seconds in _JUMPS_S:
        (scene.folder / "clock").write_text(f"{seconds:+}\n")
        scene.wait_for(lambda seconds=seconds: _is_ahead(scene, seconds), f"{seconds} s ahead")  # type: ignore[misc]
        time.sleep(_BETWEEN_S * scene.effort)
    scene.over()
    save_version(scene.folder / "models", 2)
    scene.wait_for(lambda: scene.serves(2), "served: version 2")
    return f"the clock jumps to {', '.join(f'{seconds:+,} s' for seconds in _JUMPS_S)}"


def _is_ahead(scene: Scene, seconds: float) -> bool:
    """Whether the server polls, and by its clock did so just now."""
    polled = scene.server.metrics().get('inferry_last_poll_timestamp_seconds{outcome="done"}', 0.0)
    return abs(polled - time.time() - seconds) < _EXACT_S
