"""Notices what hangs: a model that computes for ever, a thread that reads no more."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = (
    0.25  # another thread reads within half a second if one computes for long; four wake-ups a second when idle
)

_LONGEST_STEP_S = 1.0


@dataclass(frozen=True)
class Sign:
    """How long something has taken so far.

    Attributes:
        kind: of it, for the metrics.
        what: it is, as part of a sentence.
        seconds: since it began, or since it last went on.
    """

    kind: str
    what: str
    seconds: float


class Watchdog:
    """Looks at what may hang, four times a second, on a thread of its own.

    Args:
        signs: asked for everything that is under way now, on the watchdog's thread.
        hang_after_s: what takes longer hangs.
        hangs: told what hangs when something begins to, and None when nothing does any more.
        counted: told the kind of everything that begins to hang.
    """

    def __init__(
        self,
        signs: Callable[[], Iterable[Sign]],
        *,
        hang_after_s: float,
        hangs: Callable[[str | None], object],
        counted: Callable[[str], object],
    ) -> None:
        self._signs = signs
        self._hang_after_s = hang_after_s
        self._hangs = hangs
        self._counted = counted
        self._hanging: set[tuple[str, str]] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Look once."""
        hanging: dict[tuple[str, str], Sign] = {}
        for sign in self._signs():
            if sign.seconds >= self._hang_after_s:  # guard: watchdog-hangs
                hanging[sign.kind, sign.what] = sign
        for key in hanging.keys() - self._hanging:
            logger.error("not ready: %s, for %.1f s by now", hanging[key].what, hanging[key].seconds)
            self._counted(key[0])
        if hanging.keys() != self._hanging:
            if not hanging:
                logger.warning("nothing hangs any more")
            self._hangs("; ".join(sorted(what for _, what in hanging)) or None)
        self._hanging = set(hanging)

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_EVERY_S):
            try:
                self.look()
            except Exception:  # a fault of one look must not end all of them
                logger.exception("the watchdog could not look")


class Pulse:
    """For how long a count that should grow has not grown, by a look at it now and then.

    Between two looks at most a second counts: if they are further apart, the whole process was stopped in between, and
    nothing could make the count grow.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count = -1
        self._still_s = 0.0
        self._looked_at = clock()

    def still_s(self, count: int) -> float:
        """Seconds since it was first seen to be `count`; 0 where it has grown."""
        now = self._clock()
        self._still_s += min(now - self._looked_at, _LONGEST_STEP_S)  # guard: watchdog-stopped-process
        self._looked_at = now
        if count != self._count:
            self._count, self._still_s = count, 0.0
        return self._still_s
