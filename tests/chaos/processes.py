"""A server in a process of its own, and what can be seen of it from outside."""

import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from inferry_server.addresses import Address

_STOP_S = 30.0
_ASK_S = 5.0
Series = dict[str, float]


class ServerProcess:
    """`inferry-serve` on ports that it keeps over restarts. For one thread, but for what only looks.

    Args:
        repository: of its models.
        options: flags.
        launcher: a command that runs the server in its own place, under limits or with mounts of its own.
        environment: on top of ours.
        program: instead of `inferry-serve`.
        log: what it says; a file.
        tls: to read its metrics with.
    """

    def __init__(
        self,
        repository: Path,
        options: Sequence[str],
        *,
        launcher: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = (sys.executable, "-m", "inferry_server"),
        log: Path,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._command = [*launcher, *program, "--repository", str(repository), *options]
        self._environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | dict(environment or {})
        self._log, self._tls = log, tls
        self.grpc, self.http = Address("127.0.0.1", 0), Address("127.0.0.1", 0)
        self.starts = 0
        self.start()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    def start(self) -> None:
        """Start it (again); returns once it is ready.

        Raises:
            RuntimeError: it ended before.
        """
        addresses = ["--grpc-address", str(self.grpc), "--http-address", str(self.http)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *addresses], stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        self.starts += 1
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "gRPC " not in line:
            raise RuntimeError(f"a server ended with status {self._process.wait()} before it was ready: {self.said()}")
        self.grpc = _address(line.split("gRPC ")[1])
        self.http = _address(line.split("://")[1].replace("/", ","))

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.is_file() else ""

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def stop(self) -> int:
        """SIGTERM; its exit status, or that of SIGKILL where it does not end."""
        self.send(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL; its exit status."""
        self._process.kill()
        return self._process.wait(_STOP_S)

    def resident_mib(self) -> float:
        """Its memory, and that of the processes it started."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (self.pid, *self.children())]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def open_files(self) -> int:
        """Its descriptors, and those of the processes it started."""
        return sum(1 for pid in (self.pid, *self.children()) for _ in Path(f"/proc/{pid}/fd").iterdir())

    def children(self) -> list[int]:
        """The processes that it started, the oldest first."""
        return sorted(child.pid for child in psutil.Process(self.pid).children())

    def get(self, path: str) -> str:
        """A page of its HTTP port.

        Raises:
            OSError: it does not answer, or with an error.
        """
        scheme = "https" if self._tls else "http"
        url = f"{scheme}://{self.http}{path}"
        with urllib.request.urlopen(url, timeout=_ASK_S, context=self._tls) as page:  # noqa: S310 - our own server
            text: str = page.read().decode()
            return text

    def is_ready(self) -> bool:
        """What its readiness says."""
        try:
            self.get("/readyz")
        except OSError:
            return False
        return True

    def metrics(self) -> Series:
        """Its account, by series."""
        lines = (line for line in self.get("/metrics").splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def sums_by(series: Series, metric: str, label: str) -> Counter[str]:
    """A metric summed over all labels but one."""
    sums: Counter[str] = Counter()
    for name, value in series.items():
        if name.startswith(metric + "{"):
            sums[name.split(f'{label}="')[1].split('"')[0]] += int(value)
    return sums


def unsettled(server: ServerProcess, *, within_s: float) -> str:
    """Waits until every call that the server received has ended; says which have not, else nothing."""
    ends = time.monotonic() + within_s
    while True:
        series = server.metrics()
        received = sums_by(series, "inferry_requests_received_total", "method")
        outcomes = sums_by(series, "inferry_requests_outcome_total", "method")
        if received == outcomes:
            return ""
        if time.monotonic() > ends:
            return f"the server received {dict(received)} and ended {dict(outcomes)}"
        time.sleep(0.1)


def _address(text: str) -> Address:
    host, _, port = text.split(",")[0].rpartition(":")
    return Address(host, int(port))
