"""`inferry load`: one test, the search for a peak, or the comparison of two tests."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from inferry_client.client import Client
from inferry_client.console.output import say
from inferry_client.console.printing import table
from inferry_client.load.arguments import check_arguments, check_files, duration_of, gates_of
from inferry_client.load.compare import Change, compare, drift
from inferry_client.load.errors import LoadError
from inferry_client.load.find_peak import find_peak
from inferry_client.load.locust_run import ClosedLoop, check_locust
from inferry_client.load.page import render_run
from inferry_client.load.payloads import Payloads, choose_payloads
from inferry_client.load.schedule import Load
from inferry_client.load.summary import LoadSummary, describe, read_report, report
from inferry_client.load.targets import check_target, deliver
from inferry_client.load.user_stream import try_stream
from inferry_client.load.workers import OpenLoop


def run(args: Namespace) -> int:
    """Do what was asked; the exit status is 0 only if every gate was kept."""
    check_arguments(args)
    if args.action:
        return _compare(args.action[1:])
    check_files(args)
    if args.rate is None and not args.find_peak:
        check_locust()
    html, json_file, record = (check_target(name) for name in (args.html, args.json, args.record))
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
    return find_peak(args, _open_loop(args, payloads), where=where, html=html, json_file=json_file)


def _test(args: Namespace, payloads: Payloads, html: Path | None, json_file: Path | None) -> int:
    duration_s = duration_of(args)
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
    broken = gates_of(args).broken(summary)
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


def _compare(names: Sequence[str]) -> int:
    summaries: list[LoadSummary] = []
    for name in names:
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
