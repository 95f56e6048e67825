"""`make bench`: Inferry beside bare ONNX Runtime, Triton, Mosec and MLServer, as ratios measured in one run.

Every server is started once, on the same cores, with the same network. A round measures every workload on every
contender, one after the other, and every second round in the opposite order. JSON, tables and a plot go to
runs/bench. The full run takes about 20 minutes on two cores (--rounds 5), and some more the first time, when the
peers are installed; --quick shows in about three that everything works.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.contenders import Contender, Running
from bench.environments import PINS, environment
from bench.goals import bare, judge
from bench.overloads import overload_round
from bench.plot import Panel, draw
from bench.processes import cpu_s
from bench.report import print_tables, summarize
from bench.samples import BareCosts, Overload, Sample
from bench.workloads import (
    BARE,
    BARE_INT8,
    CONCURRENCIES,
    INFERRY,
    INT8,
    MLSERVER,
    MOSEC,
    OBJECTIVE,
    PEERS,
    SCRIPTED,
    TRITON,
    TRITON_TIMEOUT,
    UNBATCHED,
    contenders,
    single,
    steps,
    write_requests,
)  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]
_BARE_ROWS = (1, 2, 4, 8, 16, 32)
_EXPORT_S = 300.0


@dataclass(frozen=True)
class Durations:
    """How long things are measured: rounds, and seconds of each load in each round."""

    rounds: int
    common_s: float
    window_s: float
    bare_s: float
    locust_s: int
    overload_s: float
    model_overload_s: float
    peak_s: float
    idle_s: float
    concurrencies: tuple[int, ...]


FULL = Durations(
    rounds=5, common_s=1.0, window_s=0.5, bare_s=0.4, locust_s=4, overload_s=30, model_overload_s=8, peak_s=2,
    idle_s=20, concurrencies=CONCURRENCIES,
)  # fmt: skip
QUICK = Durations(
    rounds=1, common_s=0.5, window_s=0.5, bare_s=0.1, locust_s=1, overload_s=3, model_overload_s=2, peak_s=0.5,
    idle_s=2, concurrencies=(1, 32),
)  # fmt: skip


class Bench:
    """One run: servers, and what was measured of them so far."""

    def __init__(self, chosen: Mapping[str, Contender], durations: Durations, folder: Path, models: Path) -> None:
        self._chosen, self._durations, self._folder, self._models = chosen, durations, folder, models
        self.samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
        self.overloads: dict[tuple[str, str], list[Overload]] = defaultdict(list)
        self.start_s: list[float] = []

    @contextlib.contextmanager
    def serving(self) -> Iterator[dict[str, Running]]:
        """Every contender, one started after the other."""
        with contextlib.ExitStack() as stack:
            servers = {}
            for name, contender in self._chosen.items():
                print(f"starting {name}", file=sys.stderr)
                servers[name] = stack.enter_context(contender.serve(self._folder / contender_folder(name)))
            yield servers

    def measure(self, servers: Mapping[str, Running]) -> None:
        """All rounds."""
        requests, length = write_requests(self._folder), self._durations
        plan = [
            step
            for step in steps(
                requests, concurrencies=length.concurrencies, seconds=length.common_s, window_s=length.window_s,
                locust_s=length.locust_s,
            )
            if step.contender in servers
        ]  # fmt: skip
        for number in range(length.rounds):
            costs = {BARE: self._bare(BARE, "float32"), BARE_INT8: self._bare(BARE_INT8, "int8")}
            for step in tqdm(plan[:: -1 if number % 2 else 1], f"round {number + 1}/{length.rounds}", disable=None):
                cost = costs[BARE_INT8 if step.contender == INT8 else BARE]
                try:
                    sample = step.run(servers[step.contender], cost)
                except Exception as error:
                    error.add_note(f"in workload {step.workload!r} on {step.contender}")
                    raise
                self.samples[step.workload, step.contender].append(sample)
            self._overload(dict(servers), requests)
            self.start_s.append(self._start(number))

    def _bare(self, name: str, model: str) -> BareCosts:
        """The model alone; what a batch of each size costs."""
        threads = self._chosen[INFERRY].threads
        command = [sys.executable, "-m", "bench.bare", self._models / f"{model}.onnx", threads, self._durations.bare_s]
        done = subprocess.run(
            list(map(str, (*command, *_BARE_ROWS))), stdout=subprocess.PIPE, check=True, timeout=_EXPORT_S
        )
        measured = {int(rows): figures for rows, figures in json.loads(done.stdout).items()}
        for rows, figures in measured.items():
            cpu_us = figures["batch_cpu_us"] / rows
            self.samples[bare(rows), name].append(
                Sample(figures["images_per_s"], cpu_us, rows, 0.0, figures["p50_ms"], figures["p99_ms"])
            )
        return {rows: figures["batch_cpu_us"] for rows, figures in measured.items()}

    def _overload(self, servers: dict[str, Running], requests: dict[str, Path]) -> None:
        length = self._durations
        done = overload_round(
            servers, requests, self._folder, seconds=length.overload_s, model_s=length.model_overload_s,
            peak_s=length.peak_s,
        )  # fmt: skip
        for key, measured in done.items():
            self.overloads[key].append(measured)

    def _start(self, number: int) -> float:
        """Another Inferry, from its start until it is ready."""
        contender = replace(self._chosen[INFERRY], name="started again")
        with contender.serve(self._folder / f"start-{number}") as server:
            return server.ready_s


def main() -> int:
    """Measure, write and print; 0 even where a goal is missed: a benchmark is no test."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short run that shows that everything works")
    parser.add_argument("--rounds", type=int, help=f"of everything ({FULL.rounds})")
    parser.add_argument("--without-peer", action="append", default=[], choices=PEERS, help="leave a peer out")
    parser.add_argument("--transport", help="Inferry's setting of this name")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    arguments = parser.parse_args()
    durations = QUICK if arguments.quick else FULL
    durations = replace(durations, rounds=arguments.rounds or durations.rounds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))  # servers are stopped on the way out
    for name in {"perf_analyzer", *PEERS} - set(arguments.without_peer):
        environment(name)
    cores = len(os.sched_getaffinity(0))
    flags = ("--transport", arguments.transport) if arguments.transport else ()
    with tempfile.TemporaryDirectory(prefix="inferry-bench-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "bench.export_models", name]
        subprocess.run(command, check=True, timeout=_EXPORT_S, stdout=sys.stderr)
        chosen = contenders(folder, folder, threads=cores, inferry_flags=flags, without=arguments.without_peer)
        bench, started = Bench(chosen, durations, folder, folder), time.monotonic()
        with bench.serving() as servers:
            idle = idle_cpu(servers, durations.idle_s)
            bench.measure(servers)
            ready_s = {name: server.ready_s for name, server in servers.items() if name in {INFERRY, *PEERS.values()}}
    goals = judge(bench.samples, bench.overloads, start_s=bench.start_s, idle=[idle[INFERRY]])
    facts = {
        "machine": f"{cores} cores, {cpu_name()}, Python {platform.python_version()}",
        "minutes": (time.monotonic() - started) / 60,
        "rounds": durations.rounds,
        "transport": arguments.transport or "default",
        "pins": {each.stem: each.read_text().splitlines() for each in PINS.glob("*.txt")},
        "without": arguments.without_peer,
        "ready_s": ready_s,
        "idle": idle,
    }
    report = summarize(bench.samples, bench.overloads, goals, facts)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    (arguments.out / "concurrency.svg").write_text(draw(panels(report)))
    print(f"the chapter's MNIST network, uint8 pixels, {facts['machine']}; {durations.rounds} rounds")
    print_tables(report)
    print(f"\n{arguments.out / 'bench.json'}\n{arguments.out / 'concurrency.svg'}")
    return 0


def contender_folder(name: str) -> str:
    """A folder's name."""
    return "".join(character if character.isalnum() else "-" for character in name)


def idle_cpu(servers: Mapping[str, Running], seconds: float) -> dict[str, float]:
    """CPU of each server while nothing is asked, of a core."""
    shown = [name for name in servers if name not in {SCRIPTED, OBJECTIVE, TRITON_TIMEOUT}]
    before = {name: cpu_s(servers[name].process) for name in shown}
    time.sleep(seconds)
    return {name: (cpu_s(servers[name].process) - before[name]) / seconds for name in shown}


def panels(report: Mapping[str, Any]) -> list[list[Panel]]:
    """A row for each load generator: throughput, and p99."""
    rows = {(row["workload"], row["contender"]): row for row in report["workloads"]}

    def curves(tool: str, names: tuple[str, ...], figure: str) -> dict[str, dict[int, float]]:
        found = {
            name: {n: rows[key][figure]["median"] for n in CONCURRENCIES if (key := (single(tool, n), name)) in rows}
            for name in names
        }
        return {name: curve for name, curve in found.items() if curve}

    drawn = []
    for tool, names in {
        "perf_analyzer": (INFERRY, UNBATCHED, TRITON),
        "common client": (INFERRY, TRITON, MOSEC, MLSERVER),
    }.items():
        throughput = Panel(f"images/s, one a request ({tool})", curves(tool, names, "images_per_s"))
        p99 = Panel(f"p99 of a request, ms ({tool})", curves(tool, names, "p99_ms"), logarithmic=True)
        drawn.append([throughput, p99])
    return drawn


def cpu_name() -> str:
    """As the kernel calls it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
