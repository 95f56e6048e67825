"""SIGTERM before a command has a handler of its own: it takes a command half a second to import what it needs."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPPED = 75
"""The exit status of a job that was told to stop: EX_TEMPFAIL, run again and it goes on."""
TERMINATED = 143
"""That of a process which SIGTERM ended by its default."""


@contextmanager
def ended_by_sigterm(status: int, said: str = "") -> Iterator[None]:
    """Inside, SIGTERM ends the process at once; until the command has a handler, and again once it had it.

    An error that the handler raised could be lost: anything may be under way, as an import that tries another one. The
    first process of a container has no default for SIGTERM, and would go on.

    Args:
        status: of the process.
        said: on stderr.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        if said and sys.stderr is not None:
            os.write(2, f"inferry: {said}\n".encode())
        os._exit(status)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
