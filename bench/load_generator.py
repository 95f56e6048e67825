"""The common client, in a process of its own: a closed loop, or an open one.

The job comes as JSON on standard input (see `Job`), the result goes to standard output. A closed loop counts
latency from the moment a request was written; an open one from the moment it was due, so that a server that falls
behind is not spared.
"""

import array
import gc
import itertools
import json
import random
import selectors
import struct
import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.wire import Connection, GrpcConnection, HttpConnection

REQUESTS_A_CONNECTION = 6  # as perf_analyzer shares its channels
OPEN_CONNECTIONS = 8
_DRAIN_S = 20.0
_SEED = 0  # of random times: each run has the same


@dataclass(frozen=True)
class Job:
    """What to send.

    Attributes:
        port: on loopback.
        path: of the RPC, or of the resource.
        body: file with the request's bytes.
        seconds: how long requests are sent.
        concurrency: of a closed loop.
        rate: requests a second of an open loop, on average; 0: a closed one.
        objective_ms: answers later than this are not useful; 0: all are.
        stamp_at: where the first byte of an int64 lies in the body that says when an answer becomes useless, in
            nanoseconds of the monotonic clock; -1: nowhere.
        timeout_s: the deadline that each request carries in gRPC; 0: none.
        http: HTTP/1.1 instead of gRPC.
        headers: of HTTP requests, besides the host and the length.
        times: file that takes, as doubles, when each answered request began, on `perf_counter`'s clock, then how long
            each took, in seconds; empty: none does.
        repeats_s: an open loop's requests are due at random times, as those of many callers who know nothing of one
            another (a Poisson process), and leave within 0.1 ms; after so many seconds the same times come again, so
            that all stretches of this length are alike. 0: they are due one interval apart, and leave within 1 ms.
        lags: file that takes, as doubles, when each request of an open loop was due, then how late it left, in
            seconds; empty: none does.
    """

    port: int
    path: str
    body: str
    seconds: float
    concurrency: int = 1
    rate: float = 0.0
    objective_ms: float = 0.0
    stamp_at: int = -1
    timeout_s: int = 0
    http: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    times: str = ""
    repeats_s: float = 0.0
    lags: str = ""


@dataclass(frozen=True)
class LoadResult:
    """What came back.

    Attributes:
        sent: requests.
        answered: of them; the rest was refused.
        useful: answered within the objective.
        wall_s: until the last answer; of an open loop, while it sent.
        p50_ms: of answered requests.
        p99_ms: likewise.
        p999_ms: likewise.
        behind_ms: how late the generator itself was at worst, in an open loop.
        cpu_s: that the generator took meanwhile.
    """

    sent: int
    answered: int
    useful: int
    wall_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    behind_ms: float = 0.0
    cpu_s: float = 0.0


class Tally:
    """Answers and refusals, as they come."""

    def __init__(self, objective_ms: float, times: str = "") -> None:
        self._objective_s = objective_ms / 1e3 or float("inf")
        self._times = times
        self._cpu_s = time.process_time()
        self.began = array.array("d")
        self.latencies = array.array("d")
        self.refused = 0

    def add(self, began: float, *, answered: bool, now: float) -> None:
        if answered:
            self.began.append(began)
            self.latencies.append(now - began)
        else:
            self.refused += 1

    def result(self, wall_s: float, behind_s: float = 0.0) -> LoadResult:
        cpu_s = time.process_time() - self._cpu_s
        if self._times:
            Path(self._times).write_bytes(self.began.tobytes() + self.latencies.tobytes())
        return LoadResult(
            sent=len(self.latencies) + self.refused,
            answered=len(self.latencies),
            useful=sum(latency <= self._objective_s for latency in self.latencies),
            wall_s=wall_s,
            p50_ms=percentile(self.latencies, 50) * 1e3,
            p99_ms=percentile(self.latencies, 99) * 1e3,
            p999_ms=percentile(self.latencies, 99.9) * 1e3,
            behind_ms=behind_s * 1e3,
            cpu_s=cpu_s,
        )


def main() -> None:
    job = Job(**json.load(sys.stdin))
    gc.disable()  # nothing here refers to itself
    print(json.dumps(asdict(open_loop(job) if job.rate else closed_loop(job))))


def closed_loop(job: Job) -> LoadResult:
    """So many requests under way at any time; a refused one is sent again like an answered one."""
    body, tally = Path(job.body).read_bytes(), Tally(job.objective_ms, job.times)
    connections = connect(job, 1 if job.http else REQUESTS_A_CONNECTION)
    selector = watch([connection for connection, _ in connections])
    started = time.perf_counter()
    until = started + job.seconds
    for connection, share in connections:
        connection.send([body] * share, [started] * share)
    under_way = job.concurrency
    while under_way:
        events = selector.select(_DRAIN_S)
        if not events:
            raise TimeoutError(f"{under_way} requests had no answer within {_DRAIN_S:g} s")
        for key, _ in events:
            ended = key.fileobj.receive()  # type: ignore[union-attr]  # registered by us
            now = time.perf_counter()
            for began, answered in ended:
                tally.add(began, answered=answered, now=now)
            if now < until:
                if ended:
                    key.fileobj.send([body] * len(ended), [now] * len(ended))  # type: ignore[union-attr]
            else:
                under_way -= len(ended)
    return tally.result(time.perf_counter() - started)


def open_loop(job: Job) -> LoadResult:
    """Requests when they are due, whatever comes back."""
    connections = [open_connection(job) for _ in range(OPEN_CONNECTIONS)]
    # epoll waits whole milliseconds, select microseconds.
    selector = watch(connections, selectors.SelectSelector() if job.repeats_s else None)
    bodies, tally, due, lags = StampedBody(job), Tally(job.objective_ms, job.times), due_times(job), array.array("d")
    total, sent, ended = len(due), 0, 0
    started = time.perf_counter()
    sending_s = 0.0
    while ended < total:
        now = time.perf_counter() - started
        to = bisect_right(due, now, lo=sent)
        if sent < to:
            lags.extend([now - each for each in due[sent:to]])
            times = [started + each for each in due[sent:to]]
            # Stamped with the time it leaves: that the generator was late is no fault of the server's.
            connections[to % OPEN_CONNECTIONS].send([bodies.at(time.perf_counter()) for _ in times], times)
            sent, sending_s = to, now
        if now > job.seconds + _DRAIN_S:
            raise TimeoutError(f"{total - ended} requests had no answer {_DRAIN_S:g} s after the last was sent")
        for key, _ in selector.select(max(0.0, due[sent] - now) if sent < total else _DRAIN_S):
            answers = key.fileobj.receive()  # type: ignore[union-attr]  # registered by us
            arrived = time.perf_counter()
            for began, answered in answers:
                tally.add(began, answered=answered, now=arrived)
            ended += len(answers)
    if job.lags:
        due_at = array.array("d", [started + each for each in due])
        Path(job.lags).write_bytes(due_at.tobytes() + lags.tobytes())
    return tally.result(sending_s, max(lags, default=0.0))


def due_times(job: Job) -> "array.array[float]":
    """When the requests of an open loop are due, in seconds from its start."""
    if not job.repeats_s:
        return array.array("d", [number / job.rate for number in range(int(job.rate * job.seconds))])
    chance = random.Random(_SEED)
    # Of a Poisson process, whose count is known, the times are independent.
    once = sorted(chance.uniform(0, job.repeats_s) for _ in range(round(job.rate * job.repeats_s)))
    times = (turn * job.repeats_s + each for turn in itertools.count() for each in once)
    return array.array("d", itertools.takewhile(lambda due: due < job.seconds, times))


class StampedBody:
    """The request's bytes, with the time written into them at which an answer becomes useless."""

    def __init__(self, job: Job) -> None:
        body = Path(job.body).read_bytes()
        self._stamped = job.stamp_at >= 0
        self._head, self._tail = body[: max(0, job.stamp_at)], body[max(0, job.stamp_at) + 8 * self._stamped :]
        # perf_counter and monotonic tick alike; the stamp is read by another process.
        self._offset_ns = time.monotonic_ns() - time.perf_counter_ns() + int(job.objective_ms * 1e6)

    def at(self, sent: float) -> bytes:
        """For a request that leaves at a time of `perf_counter`."""
        if not self._stamped:
            return self._tail
        return self._head + struct.pack("<q", int(sent * 1e9) + self._offset_ns) + self._tail


def connect(job: Job, share: int) -> list[tuple[Connection, int]]:
    """Connections, and how many of the requests each has under way."""
    shares = [min(share, job.concurrency - start) for start in range(0, job.concurrency, share)]
    return [(open_connection(job), each) for each in shares]


def open_connection(job: Job) -> Connection:
    """One connection, as the job asks for it."""
    return (
        HttpConnection(job.port, job.path, job.headers)
        if job.http
        else GrpcConnection(job.port, job.path, job.timeout_s)
    )


def watch(connections: Sequence[Connection], selector: selectors.BaseSelector | None = None) -> selectors.BaseSelector:
    """Wait for the answers of all of them, with the system's best selector unless told otherwise."""
    selector = selector or selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection, selectors.EVENT_READ)
    return selector


def percentile(values: Sequence[float], percent: float) -> float:
    """Of sorted values, the nearest rank; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


if __name__ == "__main__":
    main()
