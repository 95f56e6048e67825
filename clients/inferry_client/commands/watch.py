"""`inferry status --watch`: the rates of each version, from one request for statistics to the next."""

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from inferry_client.client import Client
from inferry_client.console.output import say, say_json_line
from inferry_client.console.printing import table
from inferry_client.errors import InferryError
from inferry_client.results import ModelStatistics

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


@dataclass(frozen=True)
class Rates:
    """What one version did between two requests for statistics.

    Attributes:
        model: its name.
        version: of the model.
        requests_per_second: answered.
        failures_per_second: of requests.
        rows_per_second: computed.
        rows_per_batch: in the mean; 0 where there was no batch.
        latency_ms: of an answered request on the server, in the mean; 0 where there was none.
        queue_ms: of it, waiting.
    """

    model: str
    version: str
    requests_per_second: float
    failures_per_second: float
    rows_per_second: float
    rows_per_batch: float
    latency_ms: float
    queue_ms: float


def watch(client: Client, args: Namespace) -> int:
    """Print rates until interrupted. If the server cannot be reached, say so, and ask again."""
    before, looked = _look(client), time.monotonic()
    while True:
        time.sleep(args.watch)
        after, now = _look(client), time.monotonic()
        if isinstance(after, InferryError):
            _show(args, [], problem=str(after))
        else:
            known = () if isinstance(before, InferryError) else before
            _show(args, rates(known, after, seconds=now - looked))
        before, looked = after, now


def rates(before: Sequence[ModelStatistics], after: Sequence[ModelStatistics], *, seconds: float) -> list[Rates]:
    """What each version did meanwhile. The counters of a version that is new, or was loaded again, begin at 0."""
    earlier = {(each.model, each.version): each for each in before}
    found = []
    for each in after:
        old = earlier.get((each.model, each.version))
        if old is None or old.requests > each.requests:
            old = ModelStatistics(each.model, each.version, 0, 0, 0, 0, 0.0, 0.0, 0.0)
        requests, batches = each.requests - old.requests, each.batches - old.batches
        rows = each.rows - old.rows
        found.append(
            Rates(
                each.model,
                each.version,
                requests / seconds,
                (each.failures - old.failures) / seconds,
                rows / seconds,
                rows / batches if batches > 0 else 0.0,
                (each.request_s - old.request_s) / requests * 1e3 if requests else 0.0,
                (each.queue_s - old.queue_s) / requests * 1e3 if requests else 0.0,
            )
        )
    return found


def _look(client: Client) -> tuple[ModelStatistics, ...] | InferryError:
    try:
        return client.statistics()
    except InferryError as error:
        return error


def _show(args: Namespace, found: Sequence[Rates], *, problem: str = "") -> None:
    if args.json:
        say_json_line({"problem": problem} if problem else {"models": [asdict(each) for each in found]})
        return
    header = ("MODEL", "VERSION", "REQUESTS/S", "FAILED/S", "ROWS/S", "ROWS/BATCH", "LATENCY MS", "QUEUE MS")
    rows = [
        (each.model, each.version, f"{each.requests_per_second:.1f}", f"{each.failures_per_second:.1f}",
         f"{each.rows_per_second:.1f}", f"{each.rows_per_batch:.1f}", f"{each.latency_ms:.2f}", f"{each.queue_ms:.2f}")
        for each in found
    ]  # fmt: skip
    clear = _CLEAR if sys.stdout.isatty() else ""
    say(clear + (problem or table(header, rows)))
