"""`inferry load --find-peak`: trials of one rate after the other, and what they come to."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from inferry_client.console.output import say
from inferry_client.console.printing import table
from inferry_client.load.arguments import duration_of, gates_of
from inferry_client.load.errors import LoadError
from inferry_client.load.page import Trial, render_peak
from inferry_client.load.peak import PeakSearch
from inferry_client.load.schedule import Load
from inferry_client.load.summary import report
from inferry_client.load.targets import deliver
from inferry_client.load.workers import OpenLoop

_FIRST_RATE = 100.0
_HEADER = ("OFFERED/S", "GOOD/S", "P50 MS", "P99 MS", "REFUSED", "FAILED", "SEND LAG P99 MS", "HELD")


def find_peak(
    args: Namespace, loop: OpenLoop, *, where: str, html: Path | None, json_file: Path | None
) -> int:
    """Search, print every trial, and write the reports, also of a search that did not come to its end.

    Raises:
        LoadError: no rate was held, the client was the limit, or a trial failed.
    """
    search = PeakSearch(start=args.rate[0] if args.rate else _FIRST_RATE)
    trials: list[Trial] = []
    written = True
    try:
        _search(args, loop, search, trials)
    finally:
        if trials:
            written = _deliver(search, trials, args.p99_ms, where=where, html=html, json_file=json_file)
    peak = search.peak
    if peak is None:
        raise LoadError(f"no rate was found at which p99 is within {args.p99_ms:g} ms; the table says what was tried")
    say(f"peak: {peak:.1f} requests/s with p99 within {args.p99_ms:g} ms")
    lost = [trial for trial in trials if trial.broken and trial.rate > peak]
    if lost and min(lost, key=lambda trial: trial.rate).summary.client_limited:
        raise LoadError(
            "the client sent late at the rate above the peak, so the server may hold more; give it more cores "
            "(--processes), or a machine of its own"
        )
    return 0 if written else 1


def _search(args: Namespace, loop: OpenLoop, search: PeakSearch, trials: list[Trial]) -> None:
    gates = gates_of(args)
    while (rate := search.next_rate()) is not None:
        load = Load((rate,), duration_of(args), poisson=args.arrivals == "poisson", seed=args.seed + search.trials)
        summary = loop.run(load, stop_when_lost=True)
        broken = gates.broken(summary, client=False)  # what the client sends late is late all the same
        search.note(rate, held=not broken)
        trials.append(Trial(rate, summary, tuple(broken)))
        print(f"{rate:.1f} offered: {'held' if not broken else broken[0]}", file=sys.stderr)


def _deliver(
    search: PeakSearch, trials: Sequence[Trial], p99_ms: float, *, where: str, html: Path | None, json_file: Path | None
) -> bool:
    best = [trial for trial in trials if trial.rate == search.peak and not trial.broken]
    page = partial(render_peak, trials, title=f"{where}: peak", peak=search.peak, p99_ms=p99_ms)
    figures = (json_file, partial(report, best[-1].summary)) if best else (None, str)
    shown = table(_HEADER, [_row(trial) for trial in sorted(trials, key=lambda trial: trial.rate)])
    return deliver(shown, [figures, (html, page)])


def _row(trial: Trial) -> tuple[str, ...]:
    summary = trial.summary
    lag = "" if summary.send_lag_p99_ms is None else f"{summary.send_lag_p99_ms:.2f}"
    return (
        f"{trial.rate:.1f}", f"{summary.goodput_per_second:.1f}", f"{summary.p50_ms:.2f}", f"{summary.p99_ms:.2f}",
        str(summary.refusals), str(summary.failures), lag, "no" if trial.broken else "yes",
    )  # fmt: skip
