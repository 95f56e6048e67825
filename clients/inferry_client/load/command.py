"""`inferry load`: one test, the search for a peak, or the comparison of two tests."""

import sys
from argparse import Namespace
from pathlib import Path

from inferry_client.client import Client
from inferry_client.console.output import say
from inferry_client.console.printing import table
from inferry_client.load.compare import LEAST_SOAK_S, Change, compare, drift
from inferry_client.load.errors import ArgumentsError, LoadError
from inferry_client.load.locust_run import ClosedLoop, check_locust
from inferry_client.load.page import Trial, render_peak, render_run
from inferry_client.load.payloads import Payloads, choose_payloads
from inferry_client.load.peak import PeakSearch
from inferry_client.load.schedule import MAX_REQUESTS, Load
from inferry_client.load.summary import Gates, LoadSummary, describe, read_report, report
from inferry_client.load.targets import check_target, write_target
from inferry_client.load.user_stream import try_stream
from inferry_client.load.workers import OpenLoop

_DURATION_S, _TRIAL_S = 30, 5
_FIRST_RATE = 100.0
_MOST_ERRORS, _MOST_ERRORS_OF_PEAK = 0.0, 0.001  # share of requests, where nothing is said


def run(args: Namespace) -> int:
    """Do what was asked; the exit status is 0 only if every gate was kept."""
    if args.action:
        return _compare(args.action)
    if args.rate is None and not args.find_peak:
        check_locust()
    html, json_file, record = (check_target(name) for name in (args.html, args.json, args.record))
    if html and html == json_file:
        raise ArgumentsError(f"--html and --json both name {html}; expected two files")
    _check_combination(args)
    with Client(args.server, timeout_s=args.timeout_s) as client:
        payloads = choose_payloads(
            client,
            args.model,
            version=args.version,
            images=args.images,
            rows=args.rows,
            streamed=args.stream,
            verify=args.verify,
            record=record,
        )
        if payloads.streamed:
            try_stream(client, payloads, timeout_s=args.timeout_s)
    return _find_peak(args, payloads, html, json_file) if args.find_peak else _test(args, payloads, html, json_file)


def read_gates(args: Namespace) -> Gates:
    """What a test, or every trial of a search, must keep."""
    usual = _MOST_ERRORS_OF_PEAK if args.find_peak else _MOST_ERRORS
    return Gates(args.p99_ms, usual if args.max_error_rate is None else args.max_error_rate)


def _check_combination(args: Namespace) -> None:
    rates = args.rate or ()
    if args.find_peak and args.p99_ms is None:
        raise ArgumentsError("--find-peak needs --p99-ms: the objective that the peak is to hold")
    if args.soak and (args.find_peak or len(rates) > 1):
        raise ArgumentsError("--soak holds one load for the whole test; leave out --find-peak, and give one --rate")
    if args.soak and (args.duration or _DURATION_S) < LEAST_SOAK_S:
        raise ArgumentsError(f"--soak compares parts of a test; expected a --duration of {LEAST_SOAK_S} s or more")
    if args.find_peak and len(rates) > 1:
        raise ArgumentsError("--find-peak takes one --rate: the first to be tried")
    if max(rates, default=0) * (args.duration or _DURATION_S) > MAX_REQUESTS:
        raise ArgumentsError(f"so many requests are not kept; expected up to {MAX_REQUESTS} in a test")


def _test(args: Namespace, payloads: Payloads, html: Path | None, json_file: Path | None) -> int:
    duration_s = args.duration or _DURATION_S
    where = f"{payloads.name} at {args.server}"
    if args.rate:
        offered = ", then ".join(f"{rate:g}" for rate in args.rate)
        what = f"{where}: {offered} requests/s for {duration_s} s"
        print(what, file=sys.stderr)
        summary = _open_loop(args, payloads).run(
            Load(args.rate, duration_s, poisson=args.arrivals == "poisson", seed=args.seed)
        )
    else:
        what = f"{where}: {args.users} users for {duration_s} s"
        print(what, file=sys.stderr)
        closed = ClosedLoop(
            args.server,
            payloads,
            args.users,
            args.spawn_rate or args.users,
            timeout_s=args.timeout_s,
            objective_ms=args.p99_ms,
            verbose=args.verbose,
            processes=args.processes,
        )
        summary = closed.run(duration_s)
    broken = read_gates(args).broken(summary)
    if args.soak:
        broken += [f"--soak: {each}" for each in drift(summary)]
    say(describe(summary))
    if json_file:
        write_target(json_file, report(summary))
    if html:
        write_target(html, render_run(summary, title=what, broken=broken))
    for problem in (*broken, *summary.errors):
        print(f"inferry: error: {problem}", file=sys.stderr)
    return 1 if broken else 0


def _find_peak(args: Namespace, payloads: Payloads, html: Path | None, json_file: Path | None) -> int:
    gates = read_gates(args)
    search = PeakSearch(start=args.rate[0] if args.rate else _FIRST_RATE)
    loop = _open_loop(args, payloads)
    trials: list[Trial] = []
    duration_s = args.duration or _TRIAL_S
    while (rate := search.next_rate()) is not None:
        load = Load((rate,), duration_s, poisson=args.arrivals == "poisson", seed=args.seed + search.trials)
        summary = loop.run(load, stop_when_lost=True)
        broken = gates.broken(summary, client=False)  # what the client sends late is late all the same
        search.note(rate, held=not broken)
        trials.append(Trial(rate, summary, tuple(broken)))
        print(f"{rate:.1f} offered: {'held' if not broken else broken[0]}", file=sys.stderr)
    if html:
        where = f"{payloads.name} at {args.server}"
        write_target(html, render_peak(trials, title=f"{where}: peak", peak=search.peak, p99_ms=args.p99_ms))
    return _report_peak(search, trials, args.p99_ms, json_file)


def _report_peak(search: PeakSearch, trials: list[Trial], p99_ms: float, json_file: Path | None) -> int:
    peak = search.peak
    best = [trial for trial in trials if trial.rate == peak and not trial.broken]
    header = ("OFFERED/S", "GOOD/S", "P50 MS", "P99 MS", "REFUSED", "FAILED", "SEND LAG P99 MS", "HELD")
    say(table(header, [_trial_row(trial) for trial in sorted(trials, key=lambda trial: trial.rate)]))
    if json_file and best:
        write_target(json_file, report(best[-1].summary))
    if peak is None:
        raise LoadError(f"no rate was found at which p99 is within {p99_ms:g} ms; the table says what was tried")
    say(f"peak: {peak:.1f} requests/s with p99 within {p99_ms:g} ms")
    lost = [trial for trial in trials if trial.broken and trial.rate > peak]
    if lost and min(lost, key=lambda trial: trial.rate).summary.client_limited:
        raise LoadError(
            "the client sent late at the rate above the peak, so the server may hold more; give it more cores "
            "(--processes), or a machine of its own"
        )
    return 0


def _trial_row(trial: Trial) -> tuple[str, ...]:
    summary = trial.summary
    lag = "" if summary.send_lag_p99_ms is None else f"{summary.send_lag_p99_ms:.2f}"
    return (
        f"{trial.rate:.1f}", f"{summary.goodput_per_second:.1f}", f"{summary.p50_ms:.2f}", f"{summary.p99_ms:.2f}",
        str(summary.refusals), str(summary.failures), lag, "no" if trial.broken else "yes",
    )  # fmt: skip


def _open_loop(args: Namespace, payloads: Payloads) -> OpenLoop:
    return OpenLoop(
        args.server,
        payloads,
        timeout_s=args.timeout_s,
        processes=args.processes,
        objective_ms=args.p99_ms,
        verbose=args.verbose,
    )


def _compare(action: list[str]) -> int:
    if len(action) != 3 or action[0] != "compare":
        raise ArgumentsError(
            f"`inferry load {' '.join(action)}` is not understood; expected `inferry load compare A B`"
        )
    summaries: list[LoadSummary] = []
    for name in action[1:]:
        try:
            summaries.append(read_report(Path(name).read_text(encoding="utf-8"), name=name))
        except UnicodeDecodeError as error:
            raise LoadError(f"{name} is no report of `inferry load --json`: {error}") from error
    changes = compare(*summaries)
    say(table(("FIGURE", "A", "B", "B / A", "95 % INTERVAL", "B IS"), [_change_row(change) for change in changes]))
    return 1 if any(change.verdict == "worse" for change in changes) else 0


def _change_row(change: Change) -> tuple[str, ...]:
    ratio = change.b / change.a if change.a else 1.0 if change.b == 0 else float("inf")
    return (
        change.name, f"{change.a:.4g}", f"{change.b:.4g}", f"{ratio:.3f}",
        f"{change.low:.3f} to {change.high:.3f}", change.verdict,
    )  # fmt: skip
