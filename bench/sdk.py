"""`make bench-sdk`: what the Python client costs, and what joining many callers' calls gains.

A server on the same cores, whose model costs little: 16 us of CPU for a row, 9 us a row for 64 of them. In turns, so
that a busy machine disturbs all alike: 64 callers, threads or tasks, each with one row at a time, single and joined;
and one caller beside a bare typed stub of gRPC that sends the same message again and again.
"""

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.server_process import started
from inferry_client import AsyncClient, Batching, Client
from inferry_client.messages import requests
from testkit import onnx_models

MODEL, SIDE = "brightness", 28
PICTURE = {"images": np.zeros((1, SIDE, SIDE, 1), np.uint8)}
_WARM_UP_S, _CALLS = 0.5, 300


@dataclass(frozen=True)
class Rate:
    """What callers got in a while: rows a second, and microseconds of the client's CPU for each."""

    rows_per_s: float
    cpu_us: float


class Stopwatch:
    """Rows and CPU from its making on."""

    def __init__(self, rows: int) -> None:
        self._rows, self._began, self._cpu = rows, time.perf_counter(), cpu_s()

    def rate(self, rows: int) -> Rate:
        count = rows - self._rows
        return Rate(count / (time.perf_counter() - self._began), (cpu_s() - self._cpu) / count * 1e6)


def cpu_s() -> float:
    """CPU seconds that this process has taken."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def threads(address: str, batching: Batching | None, callers: int, seconds: float) -> Rate:
    """Callers that are threads, each with its next call as soon as one is answered."""
    counts, ended = [0] * callers, threading.Event()
    with Client(address, batching=batching, timeout_s=30) as client:

        def call(number: int) -> None:
            while not ended.is_set():
                client.infer(MODEL, PICTURE)
                counts[number] += 1

        running = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
        for thread in running:
            thread.start()
        time.sleep(_WARM_UP_S)
        watch = Stopwatch(sum(counts))
        time.sleep(seconds)
        rate = watch.rate(sum(counts))
        ended.set()
        for thread in running:
            thread.join()
    return rate


async def tasks(address: str, batching: Batching | None, callers: int, seconds: float) -> Rate:
    """Callers that are tasks of one event loop."""
    counts, ended = [0] * callers, False
    async with AsyncClient(address, batching=batching, timeout_s=30) as client:

        async def call(number: int) -> None:
            while not ended:
                await client.infer(MODEL, PICTURE)
                counts[number] += 1

        running = asyncio.gather(*map(call, range(callers)))
        await asyncio.sleep(_WARM_UP_S)
        watch = Stopwatch(sum(counts))
        await asyncio.sleep(seconds)
        rate = watch.rate(sum(counts))
        ended = True
        await running
    return rate


def above_a_stub(address: str, rounds: int) -> tuple[list[float], list[float]]:
    """Microseconds of CPU of a call, of the bare stub and of the client, for each round."""
    call = requests.infer(MODEL, PICTURE)
    message: Any = call.request
    with Client(address) as client, grpc.insecure_channel(address) as channel:
        stub: Any = channel.unary_unary(
            call.method.path,
            request_serializer=call.method.request_type.SerializeToString,
            response_deserializer=call.method.response_type.FromString,
        )
        ways: tuple[Callable[[], object], ...] = (
            lambda: stub(message, timeout=10),
            lambda: client.infer(MODEL, PICTURE),
        )
        took: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds + 1):
            for way, times in zip(ways, took, strict=True):
                began = cpu_s()
                for _ in range(_CALLS):
                    way()
                if number:  # the first round warms up
                    times.append((cpu_s() - began) / _CALLS * 1e6)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-sdk", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of everything, in turns (5)")
    parser.add_argument("--callers", type=int, default=64, help="at the same time (64)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each way and round (3)")
    arguments = parser.parse_args()
    given = arguments.callers, arguments.seconds
    rates: dict[str, list[Rate]] = {}
    with tempfile.TemporaryDirectory() as name:
        onnx_models.save_brightness(Path(name), name=MODEL, side=SIDE)
        with started(Path(name), "--provider", "cpu") as (_, line):
            address = line.split("gRPC ")[1].split(",")[0]
            for _ in range(arguments.rounds):
                for way, batching in (("single", None), ("joined", Batching())):
                    rates.setdefault(f"threads, {way}", []).append(threads(address, batching, *given))
                    rates.setdefault(f"tasks, {way}", []).append(asyncio.run(tasks(address, batching, *given)))
            bare, ours = above_a_stub(address, 5 * arguments.rounds)
    print(f"{arguments.callers} callers        rows/s   client CPU a row, us   (medians of {arguments.rounds} rounds)")
    for way, found in rates.items():
        rows = statistics.median(rate.rows_per_s for rate in found)
        print(f"{way:16} {rows:8.0f} {statistics.median(rate.cpu_us for rate in found):10.1f}")
    for kind in ("threads", "tasks"):
        ratios = [
            joined.rows_per_s / single.rows_per_s
            for single, joined in zip(rates[f"{kind}, single"], rates[f"{kind}, joined"], strict=True)
        ]
        print(f"{kind}: joined / single {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(
        f"a call's CPU: bare stub {statistics.median(bare):.0f} us, client {statistics.median(ours):.0f} us; "
        f"least {min(bare):.0f} and {min(ours):.0f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
