"""Clients when their process forks: the child has neither the threads of gRPC nor those of callers.

Before the fork, no client begins a call, and those that are inside gRPC get a moment to leave it: in the
child of a process that forked while threads moved inside gRPC, gRPC hangs or crashes now and then. Threads
that wait there for a reply stand still, and do no harm.

In the child a client opens connections of its own: on its parent's both would read and write, and gRPC's
locks may be held for ever. Nothing of the parent's is closed there, since closing waits for its threads.
"""

import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Protocol

import grpc

_MOMENT_S = 0.05
_LOOK_S = 0.0005
_GRPC = str(Path(grpc.__file__).parent)


class Forkable(Protocol):
    """A client, in the eyes of a fork. All of it runs on the thread that forks."""

    def _before_fork(self) -> None:
        """Begin no call until the fork is over."""

    def _in_parent(self) -> None:
        """The fork is over."""

    def _in_child(self) -> Any:
        """Know of no connection, call or thread; what this returns is never closed."""


_clients: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_noting = threading.RLock()  # held over a fork, so that it is free in the child; a signal's handler may make a client
_forking: list[Forkable] = []
_asyncio_is_lost = False
_of_parents: list[Any] = []


def heed_forks(client: Forkable) -> None:
    """Tell a client of every fork of its process."""
    with _noting:
        _clients.add(client)


def lose_asyncio() -> None:
    """The parent used gRPC's asyncio when it forked: its thread, which there is one of in a process, is not here."""
    global _asyncio_is_lost
    _asyncio_is_lost = True


def asyncio_is_lost() -> bool:
    """Whether calls by gRPC's asyncio would wait for ever in this process."""
    return _asyncio_is_lost


def _before() -> None:
    _noting.acquire()
    _forking[:] = _clients
    for client in _forking:
        client._before_fork()
    end = time.monotonic() + _MOMENT_S
    while _forking and _inside_grpc() and time.monotonic() < end:
        time.sleep(_LOOK_S)


def _inside_grpc() -> bool:
    """Whether another thread is inside gRPC, or about to be."""
    me = threading.get_ident()
    frames = sys._current_frames().items()
    return any(thread != me and frame.f_code.co_filename.startswith(_GRPC) for thread, frame in frames)


def _in_parent() -> None:
    while _forking:
        _forking.pop()._in_parent()
    _noting.release()


def _in_child() -> None:
    while _forking:
        _of_parents.append(_forking.pop()._in_child())
    _noting.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
