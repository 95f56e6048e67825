"""Servers as process groups: started, waited for, measured as a tree, and stopped whatever happens."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

_POLL_S, _STOP_S = 0.02, 10.0


class ServerFailedError(Exception):
    """A server that ended or did not become ready; the message ends with what it said."""


@contextlib.contextmanager
def running(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, folder: Path
) -> Iterator[psutil.Process]:
    """A server in a process group of its own, ended on leaving: asked first, then killed.

    Args:
        command: its program and arguments.
        environment: of the process, on top of ours.
        log: takes its output.
        folder: where it runs.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=os.environ | dict(environment),
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):  # the leader may be gone, and nobody else there
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_STOP_S)


def wait_until(is_ready: Callable[[], bool], process: psutil.Process, *, log: Path, timeout_s: float) -> None:
    """Wait for a server to answer.

    Raises:
        ServerFailedError: it ended before, or took too long.
    """
    ends = time.monotonic() + timeout_s
    while not is_ready():
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise ServerFailedError(f"it ended before it was ready; it said: {tail(log)}")
        if time.monotonic() > ends:
            raise ServerFailedError(f"it was not ready within {timeout_s:g} s; it said: {tail(log)}")
        time.sleep(_POLL_S)


def tail(log: Path, lines: int = 15) -> str:
    """The end of what a server said."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) or "nothing"


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds that a process, what it started and what of that has ended have taken."""
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # between the listing and the question
            times = each.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def resident_mb(process: psutil.Process) -> float:
    """Resident memory of a process and what it started, in MB; what they share is counted for each."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total / 1e6


def free_port() -> int:
    """A port that was free a moment ago, for servers that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def accepts(port: int) -> bool:
    """Whether something listens on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
