"""`inferry load --find-peak`: trials of one rate after the other, and what they come to."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from inferry_client.console.output import say
from inferry_client.console.printing import table
from inferry_client.load.arguments import duration_of, gates_of
from inferry_client.load.errors import LoadError
from inferry_client.load.page import Trial, render_peak
from inferry_client.load.peak import PeakSearch
from inferry_client.load.schedule import MAX_REQUESTS, Load
from inferry_client.load.summary import Gates, to_json
from inferry_client.load.targets import deliver
from inferry_client.load.workers import OpenLoop

_FIRST_RATE, _HIGHEST_RATE = 100.0, 1e6
_LATE_SHARE = 0.01  # of requests, which a p99 within the objective allows
_HEADER = ("OFFERED/S", "GOOD/S", "P50 MS", "P99 MS", "REFUSED", "FAILED", "SEND LAG P99 MS", "HELD")


def find_peak(args: Namespace, loop: OpenLoop, *, where: str, html: Path | None, json_file: Path | None) -> int:
    """Search, print every trial, and write the reports, also of a search that did not come to its end.

    Raises:
        LoadError: no rate was held, the client was the limit, or a trial failed.
    """
    search = PeakSearch(
        start=args.rate[0] if args.rate else _FIRST_RATE, highest=min(_HIGHEST_RATE, MAX_REQUESTS / duration_of(args))
    )
    trials: list[Trial] = []
    written = True
    try:
        _search(args, loop, search, trials)
    finally:
        if trials:
            written = _deliver(search, trials, args.p99_ms, where=where, html=html, json_file=json_file)
    peak = search.peak
    if peak is None:
        raise LoadError(verdict(search, args.p99_ms))
    say(verdict(search, args.p99_ms))
    if client_was_limit(trials, gates_of(args), peak=peak):
        raise LoadError(
            "the client sent late at the rate above the peak, so the server may hold more; give it more cores "
            "(--processes), or a machine of its own"
        )
    return 0 if written else 1


def _search(args: Namespace, loop: OpenLoop, search: PeakSearch, trials: list[Trial]) -> None:
    gates = gates_of(args)
    while (rate := search.next_rate()) is not None:
        load = Load((rate,), duration_of(args), poisson=args.arrivals == "poisson", seed=args.seed + search.trials)
        summary = loop.run(load, lost_share=_LATE_SHARE + gates.max_error_rate)
        broken = gates.broken(summary, client=False)  # what the client sends late is late all the same
        search.note(rate, held=not broken, spoilt=gates.broken_by_client(summary))
        trials.append(Trial(rate, summary, tuple(broken)))
        print(f"{rate:.1f} offered: {'held' if not broken else broken[0]}", file=sys.stderr)


def client_was_limit(trials: Sequence[Trial], gates: Gates, *, peak: float) -> bool:
    """Whether the lowest rate above the peak was only lost since the client sent late: the server may hold more."""
    lost = [trial for trial in trials if trial.broken and trial.rate > peak]
    lowest = min((trial.rate for trial in lost), default=0.0)
    return bool(lost) and all(gates.broken_by_client(trial.summary) for trial in lost if trial.rate == lowest)


def _deliver(
    search: PeakSearch, trials: Sequence[Trial], p99_ms: float, *, where: str, html: Path | None, json_file: Path | None
) -> bool:
    found = verdict(search, p99_ms)
    page = partial(render_peak, trials, title=f"{where}: peak", peak=search.peak, p99_ms=p99_ms, verdict=found)
    figures = partial(report_search, trials, peak=search.peak, p99_ms=p99_ms)
    shown = table(_HEADER, [_row(trial) for trial in sorted(trials, key=lambda trial: trial.rate)])
    return deliver(shown, [(json_file, figures), (html, page)])


def verdict(search: PeakSearch, p99_ms: float) -> str:
    """What a search found, in words, also one that was broken off."""
    held = "" if search.highest_held is None else f"; {search.highest_held:.1f} requests/s was held, but not twice"
    within = f"with p99 within {p99_ms:g} ms"
    if search.peak is not None:
        more = "; no higher rate is tried" if search.peak >= search.highest else ""
        return f"peak: {search.peak:.1f} requests/s {within}{more}"
    if search.exhausted:
        return f"no rate was held twice {within} in {search.trials} trials{held}; longer ones (--duration) vary less"
    if search.next_rate() is None:
        return f"no rate was held {within}; the lowest that was tried is {search.lowest_tried:.1f} requests/s{held}"
    return f"the search was broken off after {search.trials} trials{held}"


def report_search(trials: Sequence[Trial], *, peak: float | None, p99_ms: float) -> str:
    """A search as JSON: the figures of the last trial that held the peak, for a comparison too, and every trial's.

    Each trial has its rate, whether and why it was not held, and its figures, but not its seconds.
    """
    held = [trial for trial in trials if trial.rate == peak and not trial.broken]
    figures = asdict(held[-1].summary) if held else {}
    return to_json(figures | {"peak": peak, "objective_ms": p99_ms, "trials": [_trial(trial) for trial in trials]})


def _trial(trial: Trial) -> dict[str, Any]:
    figures = asdict(replace(trial.summary, series=()))
    del figures["series"]
    return {"rate": trial.rate, "held": not trial.broken, "broken": list(trial.broken)} | figures


def _row(trial: Trial) -> tuple[str, ...]:
    summary = trial.summary
    lag = "" if summary.send_lag_p99_ms is None else f"{summary.send_lag_p99_ms:.2f}"
    return (
        f"{trial.rate:.1f}", f"{summary.goodput_per_second:.1f}", f"{summary.p50_ms:.2f}", f"{summary.p99_ms:.2f}",
        str(summary.refusals), str(summary.failures), lag, "no" if trial.broken else "yes",
    )  # fmt: skip
