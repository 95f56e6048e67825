"""The figures of a load test: what they are, how they are printed, and which of them may fail it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from typing import Any

from inferry_client.errors import InferryError, OverloadedError
from inferry_client.load.errors import LoadError

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p999": 0.999}

_LEAST_LAG_MS = 5.0  # of the client, below which nothing is said
_LAG_SHARE = 0.2  # of the p99 latency, above which it is the client that was measured


class Outcome(Enum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Second:
    """What became of the requests of one second.

    Attributes:
        answered: rightly.
        refused: for being full.
        failed: otherwise.
        times: how many answers took each time in ms (three digits).
    """

    answered: int
    refused: int
    failed: int
    times: Mapping[float, int]


@dataclass(frozen=True)
class LoadSummary:
    """The figures of one load test.

    Attributes:
        requests: all that ended; none that was under way at the end is missing.
        answered: those among them that got a right answer.
        refusals: those that the server refused for being full.
        failures: the others: no answer, or a wrong one.
        requests_per_second: right answers, from the start to the last end.
        p50_ms: half of the right answers took at most this long; 0 where there is none.
        p90_ms: all but one in ten did.
        p99_ms: all but one in a hundred did.
        p999_ms: all but one in a thousand did.
        max_ms: the slowest.
        offered_per_second: by the schedule of an open loop; None in a closed one.
        objective_ms: within which an answer is good; None: however long it took.
        goodput_per_second: good answers.
        send_lag_p99_ms: how late the client sent, all but one request in a hundred; None in a closed loop.
        p99_from_sent_ms: as p99_ms, but from when requests left and not from when they were due; None in a closed loop.
        errors: what was refused and failed, each kind once, most frequent first.
        series: second by second.
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
    offered_per_second: float | None = None
    objective_ms: float | None = None
    goodput_per_second: float = 0.0
    send_lag_p99_ms: float | None = None
    p99_from_sent_ms: float | None = None
    errors: tuple[str, ...] = ()
    series: tuple[Second, ...] = field(default=(), repr=False)

    @property
    def full_seconds(self) -> tuple[Second, ...]:
        """The series without the last second of a closed loop, which is seldom whole."""
        return self.series if self.offered_per_second is not None else self.series[:-1] or self.series

    @property
    def error_rate(self) -> float:
        """The share of requests without a right answer."""
        return (self.refusals + self.failures) / self.requests if self.requests else 1.0

    @property
    def client_limited(self) -> bool:
        """Whether the client sent so late that it is the client that was measured."""
        lag_ms = self.send_lag_p99_ms
        return lag_ms is not None and lag_ms > max(_LEAST_LAG_MS, _LAG_SHARE * self.p99_ms)  # guard: load-client-limit


@dataclass(frozen=True)
class Gates:
    """What a test must keep to pass.

    Attributes:
        p99_ms: of right answers, at most; None: no matter.
        max_error_rate: share of requests refused or failed, at most.
    """

    p99_ms: float | None = None
    max_error_rate: float = 0.0

    def broken(self, summary: LoadSummary, *, client: bool = True) -> list[str]:
        """What a test did not keep, in words; `client`: also that it was the client that was measured."""
        found = []
        if summary.answered == 0:
            found.append("no request got a right answer")
        elif summary.error_rate > self.max_error_rate:
            found.append(
                f"{summary.error_rate:.3%} of the requests were refused or failed; "
                f"at most {self.max_error_rate:.3%} may be"
            )
        if self.p99_ms is not None and summary.p99_ms > self.p99_ms:
            found.append(f"p99 is {summary.p99_ms:.3g} ms; at most {self.p99_ms:g} ms may be")
        if client and summary.client_limited:
            found.append(
                f"the client was the limit: it sent one request in a hundred {summary.send_lag_p99_ms:.3g} ms late or "
                "more; offer less, or give it more cores (--processes)"
            )
        return found

    def broken_by_client(self, summary: LoadSummary) -> bool:
        """Whether a test did not keep these, and would have kept them had the client not sent late."""
        if summary.p99_from_sent_ms is None or not summary.client_limited:
            return False
        in_time = replace(summary, p99_ms=summary.p99_from_sent_ms)
        return bool(self.broken(summary, client=False)) and not self.broken(in_time, client=False)


def outcome_of(error: BaseException | None) -> Outcome:
    """What became of a request that ended with this error, or with a right answer."""
    if error is None:
        return Outcome.ANSWERED
    return Outcome.REFUSED if isinstance(error, OverloadedError) else Outcome.FAILED


def outcome_name(name: str, error: InferryError | None) -> str:
    """The name under which Locust counts a request: what is refused or failed stands apart in its tables."""
    return name if error is None else f"{name} ({outcome_of(error).value})"


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


def report(summary: LoadSummary) -> str:
    """The figures as JSON, for `read_report` and for whoever compares them."""
    return to_json(asdict(summary))


def to_json(document: Mapping[str, Any]) -> str:
    """The text of a report."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def read_report(text: str, *, name: str) -> LoadSummary:
    """What `report` wrote, or the best trial of a search's report.

    Raises:
        LoadError: another document, or a search without a peak; `name` says which.
    """
    try:
        document: dict[str, Any] = json.loads(text)
        if document.get("peak", 0) is None:
            raise LoadError(f"{name} is of a search that found no peak, so there is no test to compare")
        series = tuple(
            Second(s["answered"], s["refused"], s["failed"], {float(ms): n for ms, n in s["times"].items()})
            for s in document.pop("series")
        )
        known = {each.name for each in fields(LoadSummary)}
        figures = {key: value for key, value in document.items() if key in known}
        return LoadSummary(**figures | {"errors": tuple(document["errors"]), "series": series})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(f"{name} is no report of `inferry load --json`: {error}") from error


def describe(summary: LoadSummary) -> str:
    """The figures in one line."""
    words = [f"{summary.requests} requests, {summary.failures} failures, {summary.refusals} refused"]
    if summary.objective_ms is not None:
        words.append(f"{summary.goodput_per_second:.1f} good answers/s within {summary.objective_ms:g} ms")
    words.append(f"{summary.requests_per_second:.1f} requests/s")
    if summary.offered_per_second is not None:
        words.append(f"{summary.offered_per_second:.1f} offered")
    words.append(f"p50 {summary.p50_ms:.3g} ms, p99 {summary.p99_ms:.3g} ms")
    if summary.send_lag_p99_ms is not None:
        words.append(f"send lag p99 {summary.send_lag_p99_ms:.3g} ms")
    return ", ".join(words)


def bucket_ms(response_time_ms: float) -> float:
    """A response time to three significant digits.

    Locust counts times in a histogram and would round them to whole milliseconds and two digits:
    half of what a fast model takes. Three digits keep percentiles within 0.5 % and the histogram small.
    """
    return float(f"{response_time_ms:.3g}")
