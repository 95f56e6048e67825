"""One job at a time in an object store: an object with its owner's name, renewed every few seconds.

Creating, renewing and taking it are conditional, so of two jobs that try at a time one succeeds. Whoever finds one that
changes is refused; one that does not change within `STALE_S` belongs to a job that was killed. An owner that could not
renew it for as long holds it no longer, whether or not somebody took it.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inferry_client.batch.addresses import Address
from inferry_client.batch.errors import JobError
from inferry_client.batch.ownership import in_use, is_dead
from inferry_client.batch.remote.objects import ChangedError, Found, delete_object, look_at, put_object, read_object

LEASE = "_lease"
RENEW_S = 5.0
STALE_S = 20.0


class Lease:
    """A lease that this job took. `renew` is called by one thread, `held` by any."""

    def __init__(self, address: Address, owner: str, found: Found, clock: Callable[[], float]) -> None:
        self._address = address
        self._owner = owner
        self._found = found
        self._clock = clock
        self._renewed_at = clock()
        self._count = 0
        self._lost = False

    @property
    def held(self) -> bool:
        """Whether nobody else can have it."""
        return not self._lost and self._clock() - self._renewed_at < 0.75 * STALE_S

    def renew(self) -> bool:
        """Write it again; False once another job has it."""
        self._count += 1
        asked_at = self._clock()
        try:
            self._found = put_object(self._address, f"{self._owner} {self._count}".encode(), replaces=self._found)
        except ChangedError:
            self._adopt_own()
        except OSError:
            return True  # the store does not answer; it may the next time
        self._renewed_at = asked_at if not self._lost else self._renewed_at
        return not self._lost

    def release(self) -> None:
        """Give it back."""
        if self.held:
            try:
                delete_object(self._address)
            except OSError:
                return  # it is stale soon

    def _adopt_own(self) -> None:
        """Tell a renewal whose answer was lost from another job's lease."""
        try:
            found = look_at(self._address)
            self._lost = not read_object(self._address, tag=found.tag).decode().startswith(self._owner)
            self._found = found
        except (OSError, ValueError):
            self._lost = True


@contextmanager
def leased(
    address: Address,
    folder: str,
    *,
    wait: Callable[[float], object] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Lease]:
    """The lease of a folder, renewed by a thread until it is left.

    Raises:
        JobError: another job has it, or the store does not keep to conditions.
    """
    owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)})
    lease = Lease(address, owner, _take(address, owner, folder, wait or threading.Event().wait), clock)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_S) and lease.renew():
            pass

    renewing = threading.Thread(target=renew, name="batch-lease", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        ended.set()
        renewing.join()
        lease.release()


def _take(address: Address, owner: str, folder: str, wait: Callable[[float], object]) -> Found:
    try:
        found = _create(address, owner)
    except ChangedError:
        found = _take_over(address, owner, folder, wait)
    except OSError as error:
        raise JobError(f"{folder} cannot be written to: {error.strerror or error}") from error
    try:
        put_object(address, owner.encode(), replaces=None)
    except OSError:
        return found
    raise JobError(f"{folder} is in a store that ignores conditions (If-None-Match), which keep two jobs apart")


def _create(address: Address, owner: str) -> Found:
    try:
        return put_object(address, owner.encode(), replaces=None)
    except ChangedError:
        found = look_at(address)
        if read_object(address, tag=found.tag) != owner.encode():
            raise
        return found  # created, and the answer was lost


def _take_over(address: Address, owner: str, folder: str, wait: Callable[[float], object]) -> Found:
    try:
        found, who = look_at(address), read_object(address).decode(errors="replace")
        if not is_dead(who):
            wait(STALE_S)
        return put_object(address, owner.encode(), replaces=found)
    except ChangedError as error:
        raise in_use(folder, f" ({who})") from error
    except FileNotFoundError as error:
        raise in_use(folder, ", and ended just now; run again") from error
    except OSError as error:
        raise JobError(f"{folder} cannot be written to: {error.strerror or error}") from error
