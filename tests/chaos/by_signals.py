"""Processes that end or stand still."""

import os
import signal
import time
from pathlib import Path

from chaos.scene import FaultError, Scene, Setup


def terminate(scene: Scene) -> str:
    """SIGTERM, and a new process once the old one has ended, as a supervisor starts it."""
    status = scene.server.stop()
    if status:
        raise FaultError(f"a server that was told to stop under traffic ended with status {status}")
    scene.over()
    scene.server.start()
    return "SIGTERM, then a new process"


def kill(scene: Scene) -> str:
    """SIGKILL three times, each as soon as the process before is ready."""
    kills = scene.times(3)
    for _ in range(kills):
        time.sleep(0.5)
        scene.server.kill()
        scene.over()
        scene.server.start()
    return f"SIGKILL, then a new process, {kills} times"


def stand_still(scene: Scene) -> str:
    """SIGSTOP for longer than callers wait."""
    seconds = scene.way.deadline_s + scene.times(3)
    scene.server.send(signal.SIGSTOP)
    time.sleep(seconds)
    scene.over()
    scene.server.send(signal.SIGCONT)
    return f"SIGSTOP, SIGCONT after {seconds:g} s"


def with_front_ends(folder: Path) -> Setup:
    """A server whose connections two other processes hold."""
    return Setup(folder / "models", ("--front-ends", "2"))


def kill_front_ends(scene: Scene) -> str:
    """SIGKILL for one process after the other that holds connections; the server starts another each time."""
    kills = scene.times(6)
    for number in range(kills):
        scene.wait_for(lambda: _listening(scene) == 2, "two front ends")
        os.kill(scene.server.children()[0], signal.SIGKILL)
        scene.wait_for(lambda ended=number + 1: _ended(scene) == ended, "the end to be counted")  # type: ignore[misc]
    scene.over()
    scene.wait_for(lambda: _listening(scene) == 2, "two front ends")
    return f"SIGKILL for {kills} front ends, one after the other"


def _listening(scene: Scene) -> float:
    return scene.server.metrics()["inferry_front_ends"]


def _ended(scene: Scene) -> float:
    return scene.server.metrics()["inferry_front_end_ends_total"]
