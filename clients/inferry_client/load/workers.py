"""Open loops in processes of their own, as many as the rate needs."""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inferry_client.load.errors import LoadError
from inferry_client.load.payloads import Payloads, write_payloads
from inferry_client.load.records import Records, load_records, summarize
from inferry_client.load.schedule import Load, schedule
from inferry_client.load.summary import LoadSummary
from inferry_proto.cores import available_cores

# What one process sends a second with nearly half of a core to spare for lateness; see clients/README.md.
RATE_OF_A_PROCESS = 2300.0

_LEAD_S = 0.2  # from the order to start until the first request may be due
_GRACE_S = 60.0  # for processes to start, and to write what they measured


@dataclass(frozen=True)
class OpenLoop:
    """An open loop on a server.

    Attributes:
        address: of the server.
        payloads: what is sent.
        timeout_s: of every request.
        processes: that send; None: by the rate, up to the cores that this one may use.
        objective_ms: within which an answer is good.
        verbose: let the processes say what they say.
    """

    address: str
    payloads: Payloads
    timeout_s: float = 10.0
    processes: int | None = None
    objective_ms: float | None = None
    verbose: bool = False

    def run(self, load: Load, *, lost_share: float | None = None) -> LoadSummary:
        """Offer a load and give the figures.

        Args:
            load: what is offered.
            lost_share: end early once more than this share of all requests are late, refused or failed; None: go on.

        Raises:
            LoadError: a process did not come to its end.
        """
        times = schedule(load)
        if not len(times):
            raise LoadError(f"{load.rates} requests/s in {load.duration_s:g} s are none; offer more, or longer")
        records = self._send(times, load, lost_share=lost_share)
        return summarize(records, objective_ms=self.objective_ms, offered=len(times) / load.duration_s, open_loop=True)

    def _send(self, times: "np.typing.NDArray[np.float64]", load: Load, *, lost_share: float | None) -> Records:
        count = self.processes or processes_for(max(load.rates), available_cores())
        settings: dict[str, Any] = {"address": self.address, "timeout_s": self.timeout_s, "late_s": None}
        if self.objective_ms is not None and lost_share is not None:
            settings |= {"late_s": self.objective_ms / 1e3, "most_late": most_bad(len(times), lost_share)}
        with tempfile.TemporaryDirectory(prefix="inferry-load-") as temporary:
            folder = Path(temporary)
            write_payloads(self.payloads, folder)
            (folder / "sending.json").write_text(json.dumps(settings), encoding="utf-8")
            for number in range(count):
                np.save(folder / f"times-{number}.npy", times[number::count])
            with _processes(folder, count, show=self.verbose) as processes:
                start = time.monotonic() + _LEAD_S
                for process in processes:
                    _order(process, start)
                for process in processes:
                    _wait(process, load.duration_s + self.timeout_s + _GRACE_S)
            return load_records(folder.glob("*.records"))


def most_bad(requests: int, lost_share: float) -> int:
    """How many bad requests each process goes on with: as many as all of them together may have.

    A process that stopped for its own part of them would leave the others a lower rate, which may be held.
    """
    return math.ceil(requests * lost_share)


def processes_for(rate: float, cores: int) -> int:
    """How many processes a rate needs, one core each."""
    return max(1, min(cores, math.ceil(rate / RATE_OF_A_PROCESS)))


@contextmanager
def _processes(folder: Path, count: int, *, show: bool) -> "Iterator[list[subprocess.Popen[str]]]":
    """Processes that are ready to start; none is left on leaving."""
    started: list[subprocess.Popen[str]] = []
    try:
        for number in range(count):
            command = [sys.executable, "-m", "inferry_client.load.worker", str(folder), str(number)]
            stderr = None if show else subprocess.PIPE
            started.append(
                subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
                )
            )
        for process in started:
            assert process.stdout is not None  # noqa: S101 - a pipe
            if process.stdout.readline() != "ready\n":
                raise LoadError(f"a process that sends did not start, saying {_last_words(process)}")
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _order(process: "subprocess.Popen[str]", start: float) -> None:
    assert process.stdin is not None  # noqa: S101 - a pipe
    process.stdin.write(f"{start}\n")
    process.stdin.flush()


def _wait(process: "subprocess.Popen[str]", timeout_s: float) -> None:
    try:
        status = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise LoadError(f"a process that sends did not end within {timeout_s:g} s and was stopped") from None
    if status != 0:
        raise LoadError(f"a process that sends ended with status {status}, saying {_last_words(process)}")


def _last_words(process: "subprocess.Popen[str]") -> str:
    process.kill()
    said = (process.communicate()[1] or "").strip().splitlines() or ["nothing"]
    return f"{said[-1]!r}; --verbose shows all it says"
