"""What became of the requests: each is sent once and ends once."""

import threading
from collections import Counter
from dataclasses import dataclass, field

# What a server says when it does not want a request; anything else that is no answer was lost to the disturbance.
_REFUSALS = frozenset(
    ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED",
     "NOT_FOUND", "UNIMPLEMENTED", "HTTP 400", "HTTP 401", "HTTP 403", "HTTP 404", "HTTP 413", "HTTP 429", "HTTP 503")
)  # fmt: skip
LATE = "no answer in time"
"""The outcome of a request whose client gave up, as opposed to DEADLINE_EXCEEDED, which the server says."""


@dataclass
class Account:
    """Of one kind of callers while one thing happens. Any thread may count.

    Attributes:
        sent: requests, counted before they are sent.
        answered: right answers.
        wrong: answers that are not those of their request.
        refused: by what the server said.
        failed: by what the client saw instead.
    """

    sent: int = 0
    answered: int = 0
    wrong: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self) -> None:
        """One more is about to be sent."""
        with self._lock:
            self.sent += 1

    def end(self, *, right: bool) -> None:
        """An answer came."""
        with self._lock:
            self.answered += right
            self.wrong += not right

    def fail(self, outcome: str) -> None:
        """Something else than an answer came, or nothing."""
        with self._lock:
            (self.refused if outcome in _REFUSALS else self.failed)[outcome] += 1

    def ended(self) -> int:
        """All that did."""
        return self.answered + self.wrong + self.refused.total() + self.failed.total()

    def others(self, allowed: frozenset[str]) -> Counter[str]:
        """Refusals and failures that were not to be expected."""
        return Counter({what: count for what, count in (self.refused + self.failed).items() if what not in allowed})
