"""`inferry sync URL DIR`: once, or again and again."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from inferry_client.console.output import say
from inferry_client.console.stopping import TERMINATED
from inferry_client.sync.errors import SyncError
from inferry_client.sync.mirror import Mirror
from inferry_client.sync.store import ObjectStore


def run(args: argparse.Namespace) -> int:
    """Exit status 0 once a version is in the copy, 1 where none is; SIGTERM ends the loop with 0."""
    mirror = Mirror(ObjectStore(args.url), Path(args.folder), delete=args.delete)
    once = args.every_s is None
    with mirror.owned(), _ended_by_sigterm(TERMINATED if once else 0):
        if once:
            return 0 if look(mirror) else 1
        keep_looking(mirror, lambda: threading.Event().wait(args.every_s))
    return 0


def look(mirror: Mirror) -> int:
    """Copy once: print changes on stdout, and what could not be copied on stderr.

    Returns:
        How many versions are in the copy.
    """
    versions = mirror.look()
    for change in mirror.changes:
        say(change)
    for note in mirror.notes:
        print(f"inferry: {note}", file=sys.stderr, flush=True)
    if not versions:
        print("inferry: error: no version is in the copy", file=sys.stderr, flush=True)
    return versions


def keep_looking(mirror: Mirror, wait: Callable[[], bool]) -> None:
    """Copy again and again until `wait` returns True. If the store cannot be read, the copy stays as it is.

    A complaint that comes again is printed once.
    """
    told: object = None
    while True:
        try:
            mirror.look()
            complaints = tuple(mirror.notes)
        except SyncError as error:
            complaints = (f"error: {error}",)
        for change in mirror.changes:
            say(change)
        if complaints != told:
            for complaint in complaints:
                print(f"inferry: {complaint}", file=sys.stderr, flush=True)
        told = complaints
        if wait():
            return


@contextmanager
def _ended_by_sigterm(status: int) -> Iterator[None]:
    """Have SIGTERM end the loop: the first process of a container has no default for it. Half a copy is removed."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(status)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
