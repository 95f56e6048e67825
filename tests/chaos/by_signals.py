"""Processes that end or stand still."""

import signal
import time

from chaos.scene import FaultError, Scene


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
