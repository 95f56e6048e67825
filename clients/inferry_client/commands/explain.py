"""`inferry explain`: which requests were slow or refused, and why."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from inferry_client.client import Client
from inferry_client.console.misuse import refuse_useless
from inferry_client.console.output import say, say_json, shown
from inferry_client.results import ExplainedVersion, LateRequest

_BAR = 40  # characters of the slowest request
_PARTS = (("read", "r"), ("queue", "q"), ("compute", "C"), ("reply", "p"))


def run(args: Namespace) -> int:
    """Print the late requests of every version, with bars of where their time went."""
    if not args.model:
        refuse_useless(args.given, ("--version",), "it is of no model; name that with --model")
    with Client(args.server, timeout_s=args.timeout_s) as client:
        versions = client.explain(args.model, version=args.version, limit=args.limit)
    if args.json:
        say_json([asdict(version) for version in versions])
    else:
        say("\n".join(line for version in versions for line in version_lines(version)) or "no version answers")
    return 0


def version_lines(version: ExplainedVersion) -> Iterator[str]:
    """The lines of one version."""
    yield shown(f"{version.model} {version.version}")
    if not version.slowest and not version.refused:
        yield "  nothing so far"
    if version.slowest:
        yield f"  slowest ({', '.join(f'{letter} {part}' for part, letter in _PARTS)})"
        longest_s = max(request.total_s for request in version.slowest)
        for request in version.slowest:
            yield f"    {request.total_s * 1e3:9.1f} ms  {_bar(request, longest_s)}{_name(request)}"
            yield f"               {shown(request.cause)}"
            yield f"               {_details(request)}"
    if version.refused:
        yield "  refused or failed"
        for request in version.refused:
            yield f"    {request.total_s * 1e3:9.1f} ms  {shown(request.reason)}{_name(request)}"
            yield f"               {shown(request.cause)}"


def _details(request: LateRequest) -> str:
    """What the request waited for, and the batch that it was computed in."""
    padding = request.padded_rows - request.batch_rows
    deadline = "" if request.deadline_s is None else f"; deadline {request.deadline_s * 1e3:.1f} ms"
    requests = "1 request" if request.batch_requests == 1 else f"{request.batch_requests} requests"
    return (
        f"{request.rows_ahead} rows ahead in lane {shown(request.lane)}; turn {request.turn_s * 1e3:.1f} ms; batch of "
        f"{request.batch_rows} rows and {padding} of padding, of {requests}{deadline}"
    )


def _bar(request: LateRequest, longest_s: float) -> str:
    """A letter for each fortieth of the slowest request's time; the ends of the parts are rounded."""
    seconds = (request.read_s, request.queue_s, request.compute_s, request.reply_s)
    ends = _ends(seconds, _BAR / longest_s if longest_s else 0.0)
    return "".join(letter * (end - start) for (_, letter), start, end in zip(_PARTS, (0, *ends), ends, strict=False))


def _ends(seconds: Sequence[float], scale: float) -> list[int]:
    return [round(sum(seconds[: count + 1]) * scale) for count in range(len(seconds))]


def _name(request: LateRequest) -> str:
    trace = f"  trace {shown(request.trace_id)}" if request.trace_id else ""
    return (f"  request {request.request_id!r}" if request.request_id else "") + trace
