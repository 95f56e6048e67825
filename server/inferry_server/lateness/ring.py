"""Which requests of a version are kept: the slowest of the latest minutes, the latest refused ones; both bounded.

Whoever answers a request compares one number, `threshold_s`; whoever refuses one looks its reason up in `known`. Only
what is worth keeping costs more. Rules:

- The slowest of the current and of the previous minute are kept, as many of each as `size`. While there is room, any
  request is slow.
- Of the refused requests the latest `size` are kept, a few a second for each reason: one that is frequent does not
  push out the others, and refusing stays cheap under overload.
- The slowest of each second that was beyond the objective is for the log.
"""

import heapq
import itertools
import math
import threading
from collections import Counter, deque

from inferry_server.lateness.record import LateRequest

_WINDOW_S = 60.0
_LOG_EVERY_S = 1.0
_REFUSED_A_REASON = 4  # in the time between two ticks
_BY_DEADLINE = frozenset({"overloaded", "deadline_at_admission", "deadline_in_queue", "deadline_in_decoding"})

_Slow = list[tuple[float, int, LateRequest]]  # a heap, the fastest first


class LateRequests:
    """What is kept of one version's requests. Thread-safe; its lock is held for a few assignments.

    Any thread calls `keep_slow`, `keep_refused` and the readers; the watchdog `tick`.

    Args:
        size: how many of the slowest and of the refused requests are kept; 0: none.
        objective_s: requests that took longer are for the log; None: none is.

    Attributes:
        threshold_s: a request that took longer is to be kept.
        known: reasons of which enough refusals have been kept for now.
    """

    def __init__(self, size: int = 0, *, objective_s: float | None = None) -> None:
        self._size = size
        self._objective_s = math.inf if objective_s is None else objective_s
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._slow: _Slow = []
        self._slow_before: _Slow = []
        self._refused: deque[LateRequest] = deque(maxlen=size)
        self._kept: Counter[str] = Counter()
        self._to_log: LateRequest | None = None
        self._window_ends = self._next_log = -math.inf
        self.known: set[str] = set()
        self.threshold_s = 0.0
        self._set_threshold()

    def keep_slow(self, request: LateRequest) -> None:
        """A request was answered, and took longer than `threshold_s` a moment ago."""
        with self._lock:
            if len(self._slow) < self._size:
                heapq.heappush(self._slow, (request.total_s, next(self._order), request))
            elif self._size:
                heapq.heappushpop(self._slow, (request.total_s, next(self._order), request))  # guard: late-bounded
            self._log(request)
            self._set_threshold()

    def keep_refused(self, request: LateRequest) -> None:
        """A request was refused, or failed, for a reason that is not in `known`."""
        with self._lock:
            self._kept[request.reason] += 1
            if self._kept[request.reason] >= _REFUSED_A_REASON:
                self.known.add(request.reason)  # guard: late-refusals-cheap
            self._refused.append(request)
            if request.reason in _BY_DEADLINE and self._objective_s < math.inf:
                self._to_log = self._to_log or request

    def tick(self, now: float) -> LateRequest | None:
        """Time has passed: forget what is old, and let refusals be kept again. Called a few times a second.

        Returns:
            What is to be logged: the slowest request beyond the objective since a second ago, if there was one.
        """
        with self._lock:
            if now < self._next_log:
                return None
            self._next_log = now + _LOG_EVERY_S
            self._kept.clear()
            self.known.clear()
            if now >= self._window_ends:
                self._window_ends = now + _WINDOW_S
                self._slow, self._slow_before = [], self._slow  # guard: late-forgets
            logged, self._to_log = self._to_log, None
            self._set_threshold()
            return logged

    def slowest(self) -> list[LateRequest]:
        """The slowest requests of the latest minutes, the slowest first."""
        with self._lock:
            kept = heapq.nlargest(self._size, [*self._slow, *self._slow_before])
        return [request for _, _, request in kept]

    def refused(self) -> list[LateRequest]:
        """The latest requests that were refused or failed, the latest first."""
        with self._lock:
            return list(self._refused)[::-1]

    def _log(self, request: LateRequest) -> None:
        if request.total_s > self._objective_s and (self._to_log is None or request.total_s > self._to_log.total_s):
            self._to_log = request

    def _set_threshold(self) -> None:
        kept_s = math.inf
        if self._size:
            kept_s = self._slow[0][0] if len(self._slow) >= self._size else 0.0
        # Beyond the objective, one that is slower than the one to be logged is logged in its place.
        logged_s = max(self._objective_s, 0.0 if self._to_log is None else self._to_log.total_s)
        self.threshold_s = min(kept_s, logged_s)
