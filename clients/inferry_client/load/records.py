"""What became of every request of a test, and the figures made of it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_client.load.summary import PERCENTILES, LoadSummary, Outcome, Second, bucket_ms

OUTCOMES = tuple(Outcome)
"""By the number that stands for each in records."""

_ERRORS_KEPT = 5
_ROW = np.dtype([("scheduled", "f8"), ("sent", "f8"), ("ended", "f8"), ("outcome", "u1")])


@dataclass
class Records:
    """One row a request, in no particular order.

    Attributes:
        rows: `scheduled`, `sent` and `ended` in seconds from the start; `outcome` is an index into OUTCOMES.
        errors: what was said where a request was refused or failed, how often.
    """

    rows: NDArray[Any]
    errors: Counter[str] = field(default_factory=Counter)

    def save(self, path: Path) -> None:
        """Keep them for `load_records`."""
        with path.open("wb") as file:
            np.savez(file, rows=self.rows, errors=np.array(list(self.errors.items()), dtype="U400,i8"))


def make_records(rows: Iterable[tuple[float, float, float, int]], errors: Counter[str]) -> Records:
    """Records of (scheduled, sent, ended, outcome)."""
    return Records(np.array(list(rows), dtype=_ROW), errors)


def load_records(paths: Iterable[Path]) -> Records:
    """What several processes kept, together."""
    parts: list[NDArray[Any]] = [np.empty(0, _ROW)]
    errors: Counter[str] = Counter()
    for path in paths:
        with np.load(path) as file:
            parts.append(file["rows"])
            errors.update({str(text): int(count) for text, count in file["errors"]})
    return Records(np.concatenate(parts), errors)


def from_first(records: Records) -> Records:
    """The records with times that count from the first request, whose clock the processes shared."""
    rows = records.rows.copy()
    first = rows["scheduled"].min() if len(rows) else 0.0
    for column in ("scheduled", "sent", "ended"):
        rows[column] -= first
    return Records(rows, records.errors)


def summarize(
    records: Records, *, objective_ms: float | None = None, offered: float | None = None, open_loop: bool = False
) -> LoadSummary:
    """The figures of a test.

    Latencies count from the scheduled time: what a request waits in the client is part of them.

    Args:
        records: of every request.
        objective_ms: within which an answer is good.
        offered: requests a second that the schedule held; None in a closed loop.
        open_loop: whether requests had a schedule.
    """
    rows = records.rows
    counts = {outcome: int(np.sum(rows["outcome"] == number)) for number, outcome in enumerate(OUTCOMES)}
    answered = rows[rows["outcome"] == OUTCOMES.index(Outcome.ANSWERED)]
    took_ms = np.sort((answered["ended"] - answered["scheduled"]) * 1e3)  # guard: load-from-schedule
    seconds = float(rows["ended"].max() - min(0.0, rows["scheduled"].min())) if len(rows) else 0.0
    within = len(took_ms) if objective_ms is None else int(np.searchsorted(took_ms, objective_ms, side="right"))
    lag_ms = (rows["sent"] - rows["scheduled"]) * 1e3
    from_sent_ms = (answered["ended"] - answered["sent"]) * 1e3
    return LoadSummary(
        requests=len(rows),
        answered=counts[Outcome.ANSWERED],
        refusals=counts[Outcome.REFUSED],
        failures=counts[Outcome.FAILED],
        requests_per_second=len(took_ms) / seconds if seconds else 0.0,
        **{f"{name}_ms": _quantile(took_ms, share) for name, share in PERCENTILES.items()},
        max_ms=float(took_ms[-1]) if len(took_ms) else 0.0,
        offered_per_second=offered,
        objective_ms=objective_ms,
        goodput_per_second=within / seconds if seconds else 0.0,
        send_lag_p99_ms=_quantile(np.sort(lag_ms), 0.99) if open_loop else None,
        p99_from_sent_ms=_quantile(np.sort(from_sent_ms), 0.99) if open_loop else None,
        errors=tuple(f"{count} x {text}" for text, count in records.errors.most_common(_ERRORS_KEPT)),
        series=by_second(records),
    )


def by_second(records: Records) -> tuple[Second, ...]:
    """What was scheduled in each second, and what became of it."""
    rows = records.rows
    if not len(rows):
        return ()
    second = np.maximum(rows["scheduled"], 0).astype(int)
    took_ms = (rows["ended"] - rows["scheduled"]) * 1e3
    answered = OUTCOMES.index(Outcome.ANSWERED)
    in_order = np.argsort(second, kind="stable")
    ends = np.searchsorted(second[in_order], np.arange(int(second.max())), side="right")
    found = []
    for mine in np.split(in_order, ends):  # so that each row is looked at once, however long the test
        outcomes = rows["outcome"][mine]
        answers, refused, failed = np.bincount(outcomes, minlength=len(OUTCOMES)).tolist()
        times = Counter(bucket_ms(value) for value in took_ms[mine[outcomes == answered]].tolist())
        found.append(Second(answers, refused, failed, dict(sorted(times.items()))))
    return tuple(found)


def _quantile(ascending: NDArray[Any], share: float) -> float:
    """The smallest value that at least this share does not exceed; 0 where there is none."""
    if not len(ascending):
        return 0.0
    return float(ascending[max(0, int(np.ceil(len(ascending) * share - 1e-9)) - 1)])
