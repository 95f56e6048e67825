"""What a load test measured, and how it crosses from Locust's process to the command."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class LoadSummary:
    """The figures of one load test.

    Attributes:
        requests: answered or failed; none that was under way at the end is missing.
        failures: those among them that got no answer.
        requests_per_second: from the first user's start to the last answer.
        p50_ms: half of the requests took at most this long, failed ones included.
        p99_ms: all but one in a hundred did.
        errors: what failed, each kind once, most frequent first.
    """

    requests: int
    failures: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there were answers and nothing else."""
        return self.requests > 0 and self.failures == 0


def write_summary(summary: LoadSummary) -> str:
    """All of it, for `read_summary`."""
    return json.dumps(asdict(summary))


def read_summary(text: str) -> LoadSummary:
    """The summary that `write_summary` wrote."""
    document = json.loads(text)
    return LoadSummary(**document | {"errors": tuple(document["errors"])})


def report(summary: LoadSummary) -> str:
    """The figures as JSON, for whoever compares them."""
    figures = asdict(summary)
    del figures["errors"]
    return json.dumps(figures, indent=2, allow_nan=False) + "\n"


def describe(summary: LoadSummary) -> str:
    """The figures in one line."""
    return (
        f"{summary.requests} requests, {summary.failures} failures, {summary.requests_per_second:.1f} requests/s, "
        f"p50 {summary.p50_ms:.3g} ms, p99 {summary.p99_ms:.3g} ms"
    )


def bucket_ms(response_time_ms: float) -> float:
    """A response time to three significant digits.

    Locust counts times in a histogram and would round them to whole milliseconds and two digits:
    half of what a fast model takes. Three digits keep percentiles within 0.5 % and the histogram small.
    """
    return float(f"{response_time_ms:.3g}")
