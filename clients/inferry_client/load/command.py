"""`inferry load`: one test, the search for a peak, or the comparison of two tests."""

import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

from inferry_client.client import Client
from inferry_client.console.output import say
from inferry_client.console.printing import table
from inferry_client.load.compare import LEAST_SOAK_S, Change, compare, drift
from inferry_client.load.errors import ArgumentsError, LoadError
from inferry_client.load.find_peak import find_peak
from inferry_client.load.locust_run import ClosedLoop, check_locust
from inferry_client.load.page import render_run
from inferry_client.load.payloads import Payloads, choose_payloads
from inferry_client.load.schedule import MAX_REQUESTS, Load
from inferry_client.load.summary import Gates, LoadSummary, describe, read_report, report
from inferry_client.load.targets import check_target, deliver
from inferry_client.load.user_stream import try_stream
from inferry_client.load.workers import OpenLoop

_DURATION_S = 30
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
    if not args.find_peak:
        return _test(args, payloads, html, json_file)
    where = f"{payloads.name} at {args.server}"
    return find_peak(args, _open_loop(args, payloads), read_gates(args), where=where, html=html, json_file=json_file)


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
    page = partial(render_run, summary, title=what, broken=broken)
    written = deliver(describe(summary), [(json_file, partial(report, summary)), (html, page)])
    for problem in (*broken, *summary.errors):
        print(f"inferry: error: {problem}", file=sys.stderr)
    return 0 if written and not broken else 1


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
