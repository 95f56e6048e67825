"""How longer work lets other threads go on in between, so that no request waits for all of it."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_PIECE_S = 50e-6
_PAUSE_S = 50e-6
"""Long enough that a thread which waits for the interpreter has it when this one wakes up: of 400 calls of `sleep(0)`
220 gave it away, of 400 such pauses all."""

_PAUSE_OF_PIECE = 19
"""As many times as long as the piece before: with half of the time, as short pauses left it, requests that came
meanwhile took twice as long."""

_HURRIES_AFTER_S = 1.0
"""Whoever asked waits no longer than that for pauses: a page of a thousand models would take a minute."""


def in_pieces(
    parts: Iterable[T], *, clock: Callable[[], float] = time.perf_counter, pause: Callable[[float], None] = time.sleep
) -> Iterator[T]:
    """The parts of some work, each made when it is asked for; other threads go on after every piece of 50 µs.

    Whoever waits for the interpreter gets it only after 5 ms (`sys.getswitchinterval`), unless the thread that has it
    waits for something. The pieces take a twentieth of the time for a second, and half of it afterwards.

    Args:
        parts: each should take less than a piece.
        clock: seconds.
        pause: waits for so many seconds.
    """
    began = started = clock()
    for part in parts:
        yield part
        took = (now := clock()) - began
        if took >= _PIECE_S:
            hurries = now - started >= _HURRIES_AFTER_S  # guard: gives-way-hurries
            pause(_PAUSE_S if hurries else took * _PAUSE_OF_PIECE)  # guard: gives-way
            began = clock()
