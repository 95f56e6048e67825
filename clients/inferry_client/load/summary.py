"""What a load test measured, and how it crosses from Locust's process to the command."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum

from inferry_client.errors import InferryError, OverloadedError

_NOTED = {"refused": " (refused)", "failed": " (failed)"}


class Outcome(Enum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class LoadSummary:
    """The figures of one load test.

    Attributes:
        requests: all that ended; none that was under way at the end is missing.
        answered: those among them that got a right answer.
        refusals: those that the server refused for being full.
        failures: the others: no answer, or a wrong one.
        requests_per_second: right answers, from the first user's start to the last answer.
        p50_ms: half of the right answers took at most this long; 0 where there is none.
        p90_ms: all but one in ten did.
        p99_ms: all but one in a hundred did.
        p999_ms: all but one in a thousand did.
        max_ms: the slowest.
        errors: what was refused and failed, each kind once, most frequent first.
    """

    requests: int
    answered: int
    refusals: int
    failures: int
    requests_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    errors: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there were right answers and nothing else."""
        return self.answered > 0 and self.failures == 0 and self.refusals == 0


def outcome_of(error: InferryError | None) -> Outcome:
    """What became of a request that ended with this error, or with a right answer."""
    if error is None:
        return Outcome.ANSWERED
    return Outcome.REFUSED if isinstance(error, OverloadedError) else Outcome.FAILED


def outcome_name(name: str, error: InferryError | None) -> str:
    """The name under which Locust counts a request, apart by outcome."""
    return name + _NOTED.get(outcome_of(error).value, "")


def summarize(
    entries: Mapping[str, tuple[int, Mapping[float, int]]], *, seconds: float, errors: tuple[str, ...]
) -> LoadSummary:
    """The figures of what was counted.

    Args:
        entries: by `outcome_name`: how many, and how many took each time in ms.
        seconds: that the test took.
        errors: as in the summary.
    """
    counts, times = Counter[Outcome](), Counter[float]()
    for name, (count, took) in entries.items():
        outcome = next((Outcome(word) for word, note in _NOTED.items() if name.endswith(note)), Outcome.ANSWERED)
        counts[outcome] += count
        if outcome is Outcome.ANSWERED:
            times.update(took)
    answered = counts[Outcome.ANSWERED]
    return LoadSummary(
        requests=counts.total(),
        answered=answered,
        refusals=counts[Outcome.REFUSED],
        failures=counts[Outcome.FAILED],
        requests_per_second=answered / seconds if seconds else 0.0,
        **{f"{name}_ms": percentile(times, share) for name, share in PERCENTILES.items()},
        max_ms=max(times, default=0.0),
        errors=errors,
    )


PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p999": 0.999}


def percentile(times: Mapping[float, int], share: float) -> float:
    """The smallest time that at least this share of them does not exceed; 0 where there is none.

    Args:
        times: how often each was measured.
        share: in (0, 1].
    """
    wanted, seen = math.ceil(sum(times.values()) * share - 1e-9), 0
    for time in sorted(times):
        seen += times[time]
        if seen >= wanted:
            return float(time)
    return 0.0


def write_summary(summary: LoadSummary) -> str:
    """All of it, for `read_summary`."""
    return json.dumps(asdict(summary))


def read_summary(text: str) -> LoadSummary:
    """The summary that `write_summary` wrote."""
    document = json.loads(text)
    known = {field.name for field in fields(LoadSummary)}
    figures = {name: value for name, value in document.items() if name in known}
    return LoadSummary(**figures | {"errors": tuple(document.get("errors", ()))})


def report(summary: LoadSummary) -> str:
    """The figures as JSON, for whoever compares them."""
    figures = asdict(summary)
    del figures["errors"]
    return json.dumps(figures, indent=2, allow_nan=False) + "\n"


def describe(summary: LoadSummary) -> str:
    """The figures in one line."""
    return (
        f"{summary.requests} requests, {summary.failures} failures, {summary.refusals} refused, "
        f"{summary.requests_per_second:.1f} requests/s, "
        f"p50 {summary.p50_ms:.3g} ms, p99 {summary.p99_ms:.3g} ms"
    )


def bucket_ms(response_time_ms: float) -> float:
    """A response time to three significant digits.

    Locust counts times in a histogram and would round them to whole milliseconds and two digits:
    half of what a fast model takes. Three digits keep percentiles within 0.5 % and the histogram small.
    """
    return float(f"{response_time_ms:.3g}")
