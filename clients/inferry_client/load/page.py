"""The report of a load test as one HTML page, with charts drawn in SVG; nothing is loaded from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from inferry_client.load.chart import Chart, Line, draw
from inferry_client.load.summary import LoadSummary, percentile

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #59636e; --line: #d1d9e0;
  --a: #0969da; --b: #bc4c00; --c: #cf222e; --d: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --soft: #9198a1; --line: #3d444d;
  --a: #4493f8; --b: #f0883e; --c: #f85149; --d: #3fb950; } }
body { margin: 0 auto; padding: 1.5rem; max-width: 88rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 1rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 0; }
.figures div { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; }
.figures dt { color: var(--soft); font-size: .85rem; } .figures dd { margin: 0; font-size: 1.35rem;
  font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 1rem; }
figure { margin: 0; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; } .grid { stroke: var(--line); stroke-width: 1; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; } td { vertical-align: top; }
th:last-child, td:last-child { text-align: left; white-space: normal; min-width: 9rem; }
p { margin: .6rem 0; }
.bad { color: var(--c); } .good { color: var(--d); } li { overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Trial:
    """One rate that was tried in the search for the peak."""

    rate: float
    summary: LoadSummary
    broken: tuple[str, ...]


def render_run(summary: LoadSummary, *, title: str, broken: Sequence[str]) -> str:
    """The page of one test."""
    series = summary.full_seconds
    middles = [second + 0.5 for second in range(len(series))]
    span = (0.0, float(max(1, len(summary.series))))
    outcomes = Chart(
        "Requests scheduled in each second, by what became of them",
        "seconds",
        "requests/s",
        (
            Line("right answers", "--a", middles, [float(each.answered) for each in series]),
            *_unless_zero(Line("refused", "--b", middles, [float(each.refused) for each in series])),
            *_unless_zero(Line("failed", "--c", middles, [float(each.failed) for each in series])),
        ),
        span=span,
    )
    answered = [middle for middle, each in zip(middles, series, strict=True) if each.times]
    latency = Chart(
        "Latency of right answers, by second",
        "seconds",
        "ms",
        tuple(
            Line(name, colour, answered, [percentile(each.times, share) for each in series if each.times])
            for name, colour, share in (("p50", "--a", 0.50), ("p99", "--b", 0.99))
        ),
        limit=summary.objective_ms,
        span=span,
    )
    verdict = "".join(f'<li class="bad">{escape(each)}</li>' for each in broken) or '<li class="good">passed</li>'
    errors = "".join(f"<li>{escape(each)}</li>" for each in summary.errors)
    said = f"<h2>What was said</h2><ul>{errors}</ul>" if errors else ""
    return _page(title, f"<ul>{verdict}</ul>{_figures(summary)}{_charts(outcomes, latency)}{said}")


def render_peak(trials: Sequence[Trial], *, title: str, peak: float | None, p99_ms: float, verdict: str) -> str:
    """The page of a search: its verdict, its curve, and every trial.

    Of a rate that was tried several times the curve shows the last trial; the table has all.
    """
    ordered = sorted(trials, key=lambda trial: trial.rate)
    drawn = list({trial.rate: trial for trial in ordered}.values())
    rates = [trial.rate for trial in drawn]
    curve = Chart(
        "Answers against offered load", "offered requests/s", "requests/s",
        (
            Line("sent by the schedule", "--line", rates, [t.summary.offered_per_second or t.rate for t in drawn]),
            Line(f"good answers, within {p99_ms:g} ms", "--a", rates, [t.summary.goodput_per_second for t in drawn]),
            Line("right answers", "--d", rates, [trial.summary.requests_per_second for trial in drawn]),
            *_unless_zero(Line("refused or failed", "--c", rates, [_bad_per_second(t.summary) for t in drawn])),
        ),
        mark=peak,
    )  # fmt: skip
    latency = Chart(
        "Latency against offered load", "offered requests/s", "ms",
        (
            Line("p50", "--a", rates, [trial.summary.p50_ms for trial in drawn]),
            Line("p99", "--b", rates, [trial.summary.p99_ms for trial in drawn]),
        ),
        limit=p99_ms,
        mark=peak,
    )  # fmt: skip
    rows = "".join(
        f"<tr><td>{trial.rate:.1f}</td><td>{trial.summary.goodput_per_second:.1f}</td>"
        f"<td>{trial.summary.p50_ms:.2f}</td><td>{trial.summary.p99_ms:.2f}</td><td>{trial.summary.refusals}</td>"
        f"<td>{trial.summary.failures}</td><td>{trial.summary.send_lag_p99_ms or 0:.2f}</td>"
        f'<td class="{"bad" if trial.broken else "good"}">{escape(trial.broken[0]) if trial.broken else "held"}</td>'
        "</tr>"
        for trial in ordered
    )
    header = "".join(
        f"<th>{name}</th>"
        for name in ("offered/s", "good/s", "p50 ms", "p99 ms", "refused", "failed", "send lag p99 ms", "")
    )
    note = (
        "<p>A trial ends early once its rate is certain not to be held, so its figures are those of a shorter time.</p>"
    )
    tried = f'<h2>Trials</h2><div class="wide"><table><tr>{header}</tr>{rows}</table></div>{note}'
    found = f'<p class="{"good" if peak else "bad"}">{escape(verdict)}</p>'
    return _page(title, found + _charts(curve, latency) + tried)


def _bad_per_second(summary: LoadSummary) -> float:
    bad = summary.refusals + summary.failures
    seconds = summary.answered / summary.requests_per_second if summary.answered else len(summary.series)
    return bad / seconds if bad else 0.0


def _unless_zero(line: Line) -> tuple[Line, ...]:
    """No line for what did not happen; it would lie on the axis."""
    return (line,) if any(line.y) else ()


def _figures(summary: LoadSummary) -> str:
    good = "" if summary.objective_ms is None else f"good answers/s (within {summary.objective_ms:g} ms)"
    figures = {
        good: f"{summary.goodput_per_second:,.1f}",
        "right answers/s": f"{summary.requests_per_second:,.1f}",
        "offered/s": "" if summary.offered_per_second is None else f"{summary.offered_per_second:,.1f}",
        "refused": f"{summary.refusals:,}",
        "failed": f"{summary.failures:,}",
        "p50": f"{summary.p50_ms:.3g} ms",
        "p99": f"{summary.p99_ms:.3g} ms",
        "p99.9": f"{summary.p999_ms:.3g} ms",
        "slowest": f"{summary.max_ms:.3g} ms",
        "send lag p99": "" if summary.send_lag_p99_ms is None else f"{summary.send_lag_p99_ms:.3g} ms",
    }
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items() if name and value)
    return f'<dl class="figures">{shown}</dl>'


def _charts(*charts: Chart) -> str:
    drawn = "".join(f"<figure><h2>{escape(chart.title)}</h2>{draw(chart)}</figure>" for chart in charts)
    return f'<div class="charts">{drawn}</div>'


def _page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )
