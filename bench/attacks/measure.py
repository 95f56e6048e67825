"""One attack on one server: its memory, and what a good caller meets meanwhile."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from bench.attacks.table import Attack
from bench.attacks.target import Target
from bench.processes import resident_mb

LIMIT_MB = 3500.0
"""A server that takes more is ended: the machine belongs to others too."""
_LOOK_EVERY_S, _REST_S = 0.05, 1.5
_MOST_S = 45.0  # of an attack
_BACK_S, _BACK_MB = 12.0, 16.0  # how long memory may take to come back, and how near
_HONEST_STOPS_S = 40.0


@dataclass
class Outcome:
    """Of one attack on one server.

    Attributes:
        peak_mb: memory of the process tree above that of before, at most.
        left_mb: the same, some seconds afterwards.
        seconds: that the attack took.
        slowest_ms: answer of the good caller during the attack and until memory was back.
        rest_ms: its slowest answer before.
        answered: of its requests from the beginning of the attack on.
        lost: those that were not answered, by status.
        seen: what became of the attack's own connections and calls.
        ended: why the server is no more; empty: it is.
    """

    peak_mb: float = 0.0
    left_mb: float = 0.0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    rest_ms: float = 0.0
    answered: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    ended: str = ""

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Outcome":
        """An outcome that was kept as JSON."""
        return cls(**{**kept, "lost": Counter(kept["lost"]), "seen": Counter(kept["seen"])})


class Memory(threading.Thread):
    """Watches a process tree, and ends it where it takes too much."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._done = threading.Event()
        self.peak_mb = self.now_mb = resident_mb(process)
        self.too_much = False

    def run(self) -> None:
        """Look until `stop`."""
        while not self._done.wait(_LOOK_EVERY_S):
            with contextlib.suppress(psutil.NoSuchProcess):
                self.now_mb = resident_mb(self._process)
            self.peak_mb = max(self.peak_mb, self.now_mb)
            if self.now_mb > LIMIT_MB:
                self.too_much = True
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._process.kill()
                return

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        self.join()


def measure(attack: Attack, *, grpc: int, http: int, process: psutil.Process) -> Outcome:
    """Attack a server that is ready, and wait for its memory to come back."""
    outcome = Outcome()
    with _honest_caller(grpc) as asked:
        time.sleep(_REST_S)
        memory = Memory(process)
        before_mb, began = memory.now_mb, time.monotonic()
        memory.start()
        outcome.seen = attack.act(Target(grpc, http, began + _MOST_S))
        outcome.seconds = time.monotonic() - began
        ends = time.monotonic() + _BACK_S
        while memory.now_mb > before_mb + _BACK_MB and time.monotonic() < ends and _is_alive(process):
            time.sleep(_LOOK_EVERY_S)
        time.sleep(_REST_S)
        memory.stop()
    outcome.peak_mb, outcome.left_mb = memory.peak_mb - before_mb, memory.now_mb - before_mb
    if not _is_alive(process):
        outcome.ended = f"it took {LIMIT_MB:,.0f} MB" if memory.too_much else "it ended"
    outcome.rest_ms = max((s for at, s, what in asked if at < began - s), default=0.0) * 1e3
    during = [(seconds, what) for at, seconds, what in asked if at + seconds >= began]
    outcome.answered = sum(what == "OK" for _, what in during)
    outcome.slowest_ms = max((seconds for seconds, what in during if what == "OK"), default=0.0) * 1e3
    outcome.lost = Counter(what for _, what in during if what != "OK")
    return outcome


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@contextmanager
def _honest_caller(port: int) -> Iterator[list[tuple[float, float, str]]]:
    """Asks while the context lasts; what it met is in the list afterwards."""
    asked: list[tuple[float, float, str]] = []
    command = [sys.executable, "-m", "bench.attacks.honest", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield asked
            said, _ = process.communicate("end\n", timeout=_HONEST_STOPS_S)
            asked += [(at, seconds, what) for at, seconds, what in json.loads(said)]
        finally:
            process.kill()
