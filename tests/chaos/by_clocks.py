"""The machine's clock jumps: hours ahead, a day back, and hundreds of times within seconds."""

import sys
import time
from pathlib import Path

from chaos.models import save_version
from chaos.scene import POLL, Scene, Setup

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
_JUMPS_S = (3600, -86_400, 30, 10_000_000, 0)
_BETWEEN_S = 3.0
_EXACT_S = 10.0
_BURST, _BETWEEN_BURST_S = 400, 0.025
"""Many jumps, so that some fall between two looks at the clock that belong together."""


def missing() -> str:
    """Why no clock can jump."""
    return "" if _LIBRARIES else "libfaketime is not installed (Debian: apt-get install libfaketime)"


def movable(folder: Path) -> Setup:
    """A server whose wall clock follows a file; the monotonic clock is the machine's, as after a real jump."""
    clock = folder / "clock"
    _set(clock, 0)
    environment = {
        "LD_PRELOAD": str(_LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    process = {"environment": environment, "program": (sys.executable, "-m", "chaos.under_faketime")}
    return Setup(folder / "models", POLL, process)


def jump(scene: Scene) -> str:
    """Ahead, back, a little, far, and home again; a version that comes then is served."""
    clock, burst = scene.folder / "clock", scene.times(_BURST)
    for seconds in _JUMPS_S:
        _set(clock, seconds)
        scene.wait_for(lambda seconds=seconds: _is_ahead(scene, seconds), f"{seconds} s ahead")  # type: ignore[misc]
        time.sleep(_BETWEEN_S * scene.effort)
    for number in range(burst):
        _set(clock, _JUMPS_S[number % len(_JUMPS_S)])
        time.sleep(_BETWEEN_BURST_S)
    _set(clock, 0)
    scene.over()
    save_version(scene.folder / "models", 2)
    scene.wait_for(lambda: scene.serves(2), "served: version 2")
    there = ", ".join(f"{seconds:+,} s" for seconds in _JUMPS_S)
    return f"the clock jumps to {there}, and there again {burst} times within {burst * _BETWEEN_BURST_S:g} s"


def _set(clock: Path, seconds: int) -> None:
    """Written elsewhere first: the server reads the file at every look at its clock."""
    new = clock.with_suffix(".new")
    new.write_text(f"{seconds:+}\n")
    new.replace(clock)


def _is_ahead(scene: Scene, seconds: float) -> bool:
    """Whether the server polls, and by its clock did so just now."""
    polled = scene.server.metrics().get('inferry_last_poll_timestamp_seconds{outcome="done"}', 0.0)
    return abs(polled - time.time() - seconds) < _EXACT_S
