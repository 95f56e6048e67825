"""What watching a server costs its callers: p99 with ten tabs of the live page and /metrics each second, and alone.

One load goes on all the time. Watchers come and go: alone, watched, watched, alone, and again; so each segment has a
neighbour of the other kind, and every second one a neighbour of its own kind, whose ratio shows what the machine's
other work does to such a figure.
"""

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil

from bench.load_generator import Job
from bench.measure import generate
from bench.paired import Latencies, median_ratio, quantile_ratio
from bench.perf_analyzer import LoadFailedError
from bench.processes import cpu_s

TABS = 10
_SHARE = 0.99
_SETTLE_S = 0.3  # after watchers came or went, and before any figure
_START_S = 3.0  # for the load to be there
_SLACK = 1.1  # what a round may take longer, on a busy machine; there may be fewer rounds then
_NICEST = 19


@dataclass(frozen=True)
class Segment:
    """A part of the load, with all of it watched or none.

    Attributes:
        begins: on `perf_counter`'s clock, which all processes share.
        ends: likewise.
        cpu_us: of the server, for each second.
    """

    begins: float
    ends: float
    cpu_us: float


@dataclass(frozen=True)
class Round:
    """Alone, watched, watched, alone; in this order."""

    alone: tuple[Segment, Segment]
    watched: tuple[Segment, Segment]


def compare_watched(
    job: Job, http_port: int, server: psutil.Process, *, rounds: int, seconds: float
) -> dict[str, object]:
    """Ratios of p99, watched to alone, and their intervals.

    Args:
        job: an open loop, whose `times` are written.
        http_port: of the server.
        server: whose CPU is told.
        rounds: of four segments.
        seconds: of a segment; watchers come once a second, so whole ones are fair.

    Raises:
        LoadFailedError: the load failed, or no round was measured.
    """
    a_round = _SLACK * 4 * (seconds + _SETTLE_S)
    total, taken = _START_S + rounds * a_round, list[Round]()
    with ThreadPoolExecutor(1) as pool:
        loading, ends = pool.submit(generate, replace(job, seconds=total)), time.perf_counter() + total
        time.sleep(_START_S)
        while len(taken) < rounds and time.perf_counter() + a_round < ends:
            taken.append(_round(http_port, server, seconds))
        result = loading.result()
    began, latencies = read_times(Path(job.times))
    taken = [one for one in taken if one.alone[0].begins >= began.min() and one.alone[1].ends <= began.max()]
    if not taken:
        raise LoadFailedError("no round was measured while the load went on; expected a machine that is less busy")
    found = [Measured.of(one, began, latencies) for one in taken]
    return {
        "requests_per_s": job.rate,
        "refused": result.sent - result.answered,
        **ratios(found),
        "server_cpu_us_per_s": {
            "alone": _median_cpu(one.alone for one in taken),
            "watched": _median_cpu(one.watched for one in taken),
        },
        "load_average": os.getloadavg()[0],
        "must be at most": 1.05,
    }


@dataclass(frozen=True)
class Measured:
    """Latencies of one round, in seconds, by segment."""

    alone: tuple[Latencies, Latencies]
    watched: tuple[Latencies, Latencies]

    @classmethod
    def of(cls, taken: Round, began: Latencies, latencies: Latencies) -> "Measured":
        """What was due in each segment."""
        order = np.argsort(began, kind="stable")
        began, latencies = began[order], latencies[order]

        def within(segment: Segment) -> Latencies:
            return latencies[slice(*np.searchsorted(began, [segment.begins, segment.ends]))]

        (first, last), (second, third) = taken.alone, taken.watched
        return cls((within(first), within(last)), (within(second), within(third)))


def ratios(found: Sequence[Measured]) -> dict[str, object]:
    """What is told of the latencies, with an interval for each ratio.

    `paired` is the median over neighbours, which a burst of the machine's other work hardly moves. `pooled` is the p99
    of all requests, which one long burst decides. Of both, the ratio of alone to alone is what noise makes.
    """
    pairs = [pair for one in found for pair in zip(map(_p99, one.alone), map(_p99, one.watched), strict=True)]
    again = [(_p99(one.alone[1]), _p99(then.alone[0])) for one, then in pairwise(found)]
    turned = [(first, second) if at % 2 else (second, first) for at, (first, second) in enumerate(again)]
    pooled = [(np.concatenate(one.alone), np.concatenate(one.watched)) for one in found]
    told: dict[str, object] = {
        "p99_ms": {
            "alone": round(float(np.median([first for first, _ in pairs])) * 1e3, 3),
            "watched": round(float(np.median([second for _, second in pairs])) * 1e3, 3),
        },
        "watched / alone, paired": str(median_ratio(pairs)),
        "watched / alone, pooled": str(quantile_ratio(pooled, _SHARE)),
        "alone again / alone, pooled": str(quantile_ratio([one.alone for one in found], _SHARE)),
    }
    if turned:
        told["alone again / alone, paired"] = str(median_ratio(turned))
    return told


def _p99(latencies: Latencies) -> float:
    return float(np.quantile(latencies, _SHARE))


def read_times(path: Path) -> tuple[Latencies, Latencies]:
    """When requests were due, and how long each took; as `Job.times` says."""
    began, latencies = np.fromfile(path).reshape(2, -1)
    return began, latencies


def _round(port: int, server: psutil.Process, seconds: float) -> Round:
    first = _segment(server, seconds)
    with watching(port):
        watched = _segment(server, seconds), _segment(server, seconds)
    return Round((first, _segment(server, seconds)), watched)


def _segment(server: psutil.Process, seconds: float) -> Segment:
    time.sleep(_SETTLE_S)
    begins, before = time.perf_counter(), cpu_s(server)
    time.sleep(seconds)
    ends = time.perf_counter()
    return Segment(begins, ends, (cpu_s(server) - before) / (ends - begins) * 1e6)


def _median_cpu(segments: Iterator[tuple[Segment, Segment]]) -> int:
    return round(float(np.median([one.cpu_us for pair in segments for one in pair])))


@contextmanager
def watching(port: int) -> Iterator[None]:
    """The live page's stream in ten tabs, and the metrics read once a second, by one thread.

    It runs when nobody else wants the core: browsers and Prometheus have cores of their own.
    """
    done, selector = threading.Event(), selectors.DefaultSelector()
    with contextlib.ExitStack() as stack:
        stack.callback(selector.close)
        for _ in range(TABS):
            selector.register(_opened(stack, port, "/live"), selectors.EVENT_READ)
        thread = threading.Thread(target=_look, args=(selector, _opened(stack, port, "/metrics"), done))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _look(tabs: selectors.BaseSelector, scraper: socket.socket, done: threading.Event) -> None:
    """Read what comes, and ask for the metrics each second, as Prometheus does: in OpenMetrics' format."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICEST)  # of this thread alone, on Linux
    tabs.register(scraper, selectors.EVENT_READ)
    asked, space = time.monotonic(), bytearray(1 << 20)
    while not done.is_set():
        for key, _ in tabs.select(0.1):
            if not key.fileobj.recv_into(space):  # type: ignore[union-attr]  # registered by us
                raise ConnectionError("the server closed a watcher's connection")
        if time.monotonic() - asked >= 1:
            asked = time.monotonic()
            scraper.sendall(_request("/metrics"))


def _opened(stack: contextlib.ExitStack, port: int, path: str) -> socket.socket:
    opened = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
    opened.sendall(_request(path))
    return opened


def _request(path: str) -> bytes:
    accept = "application/openmetrics-text;version=1.0.0"
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\n\r\n".encode()
