"""How a job shares its machine with servers and their callers, and its interpreter among its own threads."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from typing import TypeVar

T = TypeVar("T")

_ITEMS_A_TURN = 64
_SWITCH_INTERVAL_S = 0.0005


def give_way() -> None:
    """Run the calling thread, and those and the processes that it starts from now on, when nobody else wants the core.

    A core whose threads all run so counts as idle when the kernel looks for one for a thread that wakes up, as a
    server's does: with a low priority (nice) that thread would wait for the core that woke it. Linux alone has it, and
    a sandbox may refuse it.
    """
    if sys.platform == "linux":  # guard: batch-gives-way
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # 0: this thread


def let_others_go() -> None:
    """Give this core to a thread of others that waits for it, a server's say; where none waits, it takes 0.5 us.

    To give way is not enough: the kernel looks only every few milliseconds whether a thread that computes has had its
    share, and a server's thread that it interrupted waits that long, behind whatever gives way. So a job calls this
    every few tenths of a millisecond. Linux alone has it, and a sandbox may refuse it.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_yield()


def in_turns(items: Iterable[T]) -> Iterator[T]:
    """The items, each of which takes some microseconds; after every 64 of them others go."""
    for number, item in enumerate(items):
        if number % _ITEMS_A_TURN == 0:  # guard: batch-job-turns
            let_others_go()
        yield item


class _ImportsInTurns(MetaPathFinder):
    """Finds no module; lets others go whenever one is looked for."""

    def find_spec(self, *_: object) -> None:
        let_others_go()


def import_in_turns() -> MetaPathFinder:
    """Let others go before each module that this process imports from now on: that takes a job half a second.

    Returns:
        What does so, first in `sys.meta_path`.
    """
    finder = _ImportsInTurns()
    sys.meta_path.insert(0, finder)
    return finder


@contextmanager
def importing_in_turns() -> Iterator[None]:
    """Inside, others go before each module that is imported."""
    finder = import_in_turns()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def quick_switches() -> Iterator[None]:
    """Inside, a thread waits half a millisecond for one that computes, where Python lets it wait five.

    Some ten times on its way a chunk waits for the interpreter, while a part is being made for tens of milliseconds:
    with Python's own interval decoders ran out of chunks meanwhile.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _SWITCH_INTERVAL_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
