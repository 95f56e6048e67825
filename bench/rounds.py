"""One run: rounds that start every contender, and measure each workload on each of them."""

import contextlib
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bench.contenders import Contender, Running
from bench.goals import bare
from bench.overloads import overload_round
from bench.processes import cpu_s
from bench.samples import BareCosts, Overload, Sample
from bench.workloads import (
    BARE,
    BARE_INT8,
    BARE_OF,
    BESIDE_BARE,
    CONCURRENCIES,
    INFERRY,
    Step,
    steps,
    write_requests,
)

_BARE_ROWS = (1, 2, 4, 8, 16, 32)
_BARE_TIMEOUT_S = 120.0
_BARE_MODELS = {BARE: "float32", BARE_INT8: "int8"}


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
    rounds=5, common_s=1.0, window_s=0.5, bare_s=0.4, locust_s=4, overload_s=30, model_overload_s=8, peak_s=4,
    idle_s=8, concurrencies=CONCURRENCIES,
)  # fmt: skip
QUICK = Durations(
    rounds=1, common_s=0.5, window_s=0.5, bare_s=0.1, locust_s=1, overload_s=3, model_overload_s=2, peak_s=0.5,
    idle_s=2, concurrencies=(1, 32),
)  # fmt: skip


class Bench:
    """One run, and what was measured so far.

    Processes of one program are not equally fast: where their memory lies is chance, and worth some hundredths. So
    every round starts its own.

    Args:
        chosen: contenders by name.
        durations: of everything.
        folder: for everything that is written; `float32.onnx` and `int8.onnx` lie there.
    """

    def __init__(self, chosen: Mapping[str, Contender], durations: Durations, folder: Path) -> None:
        self._chosen, self._durations, self._folder = chosen, durations, folder
        self.samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
        self.beside: dict[tuple[str, str], list[dict[int, Sample]]] = defaultdict(list)
        self.overloads: dict[tuple[str, str], list[Overload]] = defaultdict(list)
        self.ready_s: dict[str, list[float]] = defaultdict(list)
        self.idle: dict[str, list[float]] = defaultdict(list)

    def measure(self) -> None:
        """All rounds."""
        requests, length = write_requests(self._folder), self._durations
        plan = [
            step
            for step in steps(
                requests, concurrencies=length.concurrencies, seconds=length.common_s, window_s=length.window_s,
                locust_s=length.locust_s,
            )
            if step.contender in self._chosen
        ]  # fmt: skip
        for number in range(length.rounds):
            with self._serving(number) as servers:
                self._idle(servers)
                bares = {name: self._bare(model) for name, model in _BARE_MODELS.items()}
                for name, measured in bares.items():
                    for rows, sample in measured.items():
                        self.samples[bare(rows), name].append(sample)
                ordered = plan[:: -1 if number % 2 else 1]
                for step in tqdm(ordered, f"round {number + 1}/{length.rounds}", disable=None):
                    self._measure(step, servers, bares)
                self._overload(servers, requests)

    @contextlib.contextmanager
    def _serving(self, number: int) -> Iterator[dict[str, Running]]:
        """Every contender, one started after the other."""
        with contextlib.ExitStack() as stack:
            servers = {}
            for name, contender in self._chosen.items():
                print(f"round {number + 1}: starting {name}", file=sys.stderr)
                server = stack.enter_context(contender.serve(self._folder / f"{folder_name(name)}-{number}"))
                servers[name] = server
                self.ready_s[name].append(server.ready_s)
            yield servers

    def _idle(self, servers: Mapping[str, Running]) -> None:
        """CPU of each server while nothing is asked, of a core."""
        before = {name: cpu_s(server.process) for name, server in servers.items()}
        time.sleep(self._durations.idle_s)
        for name, server in servers.items():
            self.idle[name].append((cpu_s(server.process) - before[name]) / self._durations.idle_s)

    def _measure(self, step: Step, servers: Mapping[str, Running], bares: dict[str, dict[int, Sample]]) -> None:
        """One step; `bares` is measured anew where it is compared with."""
        key, name = (step.workload, step.contender), BARE_OF.get(step.contender, BARE)
        if key in BESIDE_BARE:  # the machine is not the same a minute later
            bares[name] = self._bare(_BARE_MODELS[name])
            self.beside[key].append(bares[name])
        try:
            sample = step.run(servers[step.contender], batch_costs(bares[name]))
        except Exception as error:
            error.add_note(f"in workload {step.workload!r} on {step.contender}")
            raise
        self.samples[key].append(sample)

    def _bare(self, model: str) -> dict[int, Sample]:
        """The model alone, by the rows of its batches."""
        threads = self._chosen[INFERRY].threads
        command = [sys.executable, "-m", "bench.bare", self._folder / f"{model}.onnx", threads, self._durations.bare_s]
        done = subprocess.run(
            list(map(str, (*command, *_BARE_ROWS))), stdout=subprocess.PIPE, check=True, timeout=_BARE_TIMEOUT_S
        )
        return {
            int(rows): Sample(
                each["images_per_s"], each["batch_cpu_us"] / int(rows), int(rows), 0.0, each["p50_ms"], each["p99_ms"]
            )
            for rows, each in json.loads(done.stdout).items()
        }

    def _overload(self, servers: dict[str, Running], requests: dict[str, Path]) -> None:
        length = self._durations
        done = overload_round(
            servers, requests, self._folder, seconds=length.overload_s, model_s=length.model_overload_s,
            peak_s=length.peak_s,
        )  # fmt: skip
        for key, measured in done.items():
            self.overloads[key].append(measured)


def batch_costs(measured: Mapping[int, Sample]) -> BareCosts:
    """What a batch of each size costs."""
    return {rows: sample.cpu_us * rows for rows, sample in measured.items()}


def folder_name(name: str) -> str:
    """A folder's name."""
    return "".join(character if character.isalnum() else "-" for character in name)
