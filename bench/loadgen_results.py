"""What MLPerf's LoadGen wrote about a run, and the table of several. Reads text only."""

import re
from dataclasses import dataclass
from statistics import median

_FIGURES = {  # scenario -> the line of its summary that states its figure, and the unit we print
    "SingleStream": ("90.0th percentile latency (ns)", "p90 ms"),
    "MultiStream": ("99.0th percentile latency (ns)", "p99 ms of 8"),
    "Server": ("Completed samples per second", "samples/s"),
    "Offline": ("Samples per second", "samples/s"),
}
_AGREEMENT = 0.1  # of the peaks that two generators find: the median of their ratios
_TO_MS = 1e6  # of a nanosecond


class SummaryError(ValueError):
    """A summary that does not say what it must."""


@dataclass(frozen=True)
class Result:
    """One scenario's outcome.

    Attributes:
        scenario: LoadGen's name.
        figure: in `unit`.
        unit: of it.
        valid: by LoadGen, and no request was refused or failed.
        reasons: why it is not.
        p99_ms: of single queries; None where a query is more than one sample.
        client_cores: that LoadGen and the client kept busy meanwhile; None: not measured.
        least_ms: that a query took; None where LoadGen does not tell.
    """

    scenario: str
    figure: float
    unit: str
    valid: bool
    reasons: tuple[str, ...] = ()
    p99_ms: float | None = None
    client_cores: float | None = None
    least_ms: float | None = None


def read_summary(text: str, *, failed: int) -> Result:
    """The result in `mlperf_log_summary.txt`.

    LoadGen knows no refusals: to it every completed query is an answer. A run with any is invalid.

    Args:
        text: of the file.
        failed: requests of the run that got no answer.

    Raises:
        SummaryError: a line is missing.
    """
    scenario = _value(text, "Scenario")
    name, unit = _FIGURES.get(scenario, ("", ""))
    if not name:
        raise SummaryError(f"scenario {scenario!r} is not known; known are {', '.join(_FIGURES)}")
    figure = float(_value(text, name))
    verdict = _value(text, "Result is")
    reasons = [] if verdict == "VALID" else [f"LoadGen: {line}" for line in _unsatisfied(text) or [verdict]]
    if failed:
        reasons.append(f"{failed} requests were refused or failed")
    p99_ms = _find_ms(text, "99.00 percentile latency (ns)")
    return Result(
        scenario,
        figure / _TO_MS if name.endswith("(ns)") else figure,
        unit,
        not reasons,
        tuple(reasons),
        p99_ms if scenario in ("SingleStream", "Server") else None,
        least_ms=_find_ms(text, "Min latency (ns)"),
    )


def table(results: list[Result], *, accuracy: tuple[int, int, int] | None) -> str:
    """The results for people.

    Args:
        results: in the order they ran.
        accuracy: images answered rightly, by Keras rightly, and all; None: not measured.
    """
    rows = ["| LoadGen, unofficial | | p99 ms | |", "| --- | --- | --- | --- |"]
    for result in results:
        p99 = "" if result.p99_ms is None else f"{result.p99_ms:.2f}"
        said = "VALID" if result.valid else "INVALID: " + "; ".join(result.reasons)
        rows.append(f"| {result.scenario} | {result.figure:,.2f} {result.unit} | {p99} | {said} |")
    by_name = {result.scenario: result for result in results}
    if "Server" in by_name and "Offline" in by_name and by_name["Offline"].figure:
        rows.append(f"| Server ÷ Offline | {by_name['Server'].figure / by_name['Offline'].figure:.2f} | | |")
        if (cores := by_name["Server"].client_cores) is not None:
            rows.append(f"| client beside the server | {cores:.2f} cores | | |")
    if accuracy:
        served, keras, images = accuracy
        verdict = "equal" if served == keras else "NOT EQUAL"
        rows.append(f"| AccuracyOnly | {served} of {images} right, Keras {keras} | | {verdict} |")
    return "\n".join(rows)


def peaks_table(pairs: list[tuple[float, float]], *, latency_ms: float) -> str:
    """The highest rates that two load generators found in turns, and the median of their ratios.

    Args:
        pairs: LoadGen's and `inferry load --find-peak`'s requests/s, one pair each time.
        latency_ms: the objective of both, for p99.
    """
    rows = [
        f"| highest rate with p99 within {latency_ms:g} ms | LoadGen, unofficial | `--find-peak` | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for number, (theirs, ours) in enumerate(pairs, 1):
        rows.append(f"| {number} | {theirs:,.0f} | {ours:,.0f} | {ours / theirs:.2f} |")
    ratios = [ours / theirs for theirs, ours in pairs]
    theirs, ours = (median(pair[side] for pair in pairs) for side in (0, 1))
    verdict = "agree" if abs(median(ratios) - 1) <= _AGREEMENT else "DISAGREE"
    ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    rows.append(f"| medians: they {verdict} within {_AGREEMENT:.0%} | {theirs:,.0f} | {ours:,.0f} | {ratio} |")
    return "\n".join(rows)


def _value(text: str, name: str) -> str:
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.*?)\s*$", text, re.MULTILINE)
    if not found:
        raise SummaryError(f"LoadGen's summary has no line {name!r}")
    return found[1]


def _find_ms(text: str, name: str) -> float | None:
    found = re.search(rf"^{re.escape(name)}\s*:\s*(\S+)\s*$", text, re.MULTILINE)
    return float(found[1]) / _TO_MS if found else None


def _unsatisfied(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if re.search(r"satisfied\s*:\s*NO", line)]
