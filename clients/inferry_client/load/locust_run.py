"""A closed loop: Locust, headless, in processes of its own."""

import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from inferry_client.load.errors import LoadError
from inferry_client.load.payloads import Payloads, write_payloads
from inferry_client.load.records import from_first, load_records, summarize
from inferry_client.load.summary import LoadSummary
from inferry_proto.cores import available_cores

# Users whose requests take a millisecond or more keep no process busy that has so many; see clients/README.md.
USERS_OF_A_PROCESS = 64

_GRACE_S = 60.0  # for Locust to start, and to write what it measured
_LOOK_S = 0.1  # between two looks at the processes


@dataclass(frozen=True)
class ClosedLoop:
    """Users on a server.

    Attributes:
        address: of the server.
        payloads: what is sent.
        users: each sends its next request when the last is answered.
        spawn_rate: users started a second.
        timeout_s: of every request; also how long the last ones may take after the duration.
        objective_ms: within which an answer is good.
        verbose: print what Locust says.
        processes: that the users run in; None: by their number, up to the cores.
    """

    address: str
    payloads: Payloads
    users: int
    spawn_rate: float
    timeout_s: float = 10.0
    objective_ms: float | None = None
    verbose: bool = False
    processes: int | None = None

    def run(self, duration_s: int) -> LoadSummary:
        """Let the users send for so long from when they send in every process.

        Raises:
            LoadError: Locust did not come to its end.
        """
        with tempfile.TemporaryDirectory(prefix="inferry-load-") as temporary:
            folder = Path(temporary)
            write_payloads(self.payloads, folder)
            with ExitStack() as started:
                # The first is the one that ends by itself; Locust's workers end with their master.
                commands = self._commands(duration_s)
                processes = [started.enter_context(self._started(command, folder)) for command in commands]
                timeout_s = duration_s + self.users / self.spawn_rate + self.timeout_s + _GRACE_S
                status = wait_for_all(processes, timeout_s)
            kept = list(folder.glob("*.records"))
            if status != 0 or not kept:
                said = (folder / "locust.log").read_text(errors="replace").strip().splitlines() or ["nothing"]
                ended = f"did not end within {timeout_s:g} s" if status is None else f"ended with status {status}"
                raise LoadError(f"Locust {ended}, saying {said[-1]!r}; --verbose shows all it says")
            return summarize(from_first(load_records(kept)), objective_ms=self.objective_ms)

    @contextmanager
    def _started(self, command: list[str], folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LOCUST_")} | {
            "INFERRY_LOAD_FOLDER": str(folder),
            "INFERRY_LOAD_TIMEOUT_S": str(self.timeout_s),
            "INFERRY_LOAD_PROCESSES": str(self._count()),
        }
        with (folder / "locust.log").open("a") as log:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                command,
                env=environment,
                cwd=folder,  # where no configuration of Locust's lies
                stdin=subprocess.DEVNULL,
                stdout=None if self.verbose else log,
                stderr=None if self.verbose else log,
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def _count(self) -> int:
        return min(self.users, self.processes or processes_for_users(self.users, available_cores()))

    def _commands(self, duration_s: int) -> list[list[str]]:
        """Locust's, or those of its distributed mode: a master, which sends nothing, and its workers."""
        locustfile = Path(__file__).with_name("locustfile.py")
        locust = [
            sys.executable,
            "-m",
            "locust",
            "--headless",
            "--locustfile",
            str(locustfile),
            "--loglevel",
            "WARNING",
        ]
        test = ["--host", self.address, "--users", str(self.users), "--spawn-rate", str(self.spawn_rate)]
        test += ["--run-time", f"{duration_s}s", "--stop-timeout", str(math.ceil(self.timeout_s))]
        test += ["--only-summary", "--exit-code-on-error", "0"]
        count = self._count()
        if count == 1:
            return [locust + test]
        port = str(_free_port())
        master = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        master += ["--expect-workers", str(count), "--expect-workers-max-wait", str(int(_GRACE_S))]
        worker = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
        return [locust + test + master, *([locust + worker] * count)]


def processes_for_users(users: int, cores: int) -> int:
    """How many processes users run in: one core each, and one core is left to everything else."""
    return max(1, min(cores - 1, math.ceil(users / USERS_OF_A_PROCESS)))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def check_locust() -> None:
    """See that Locust is installed, without importing it: it would patch this process too.

    Raises:
        ModuleNotFoundError: it is not.
    """
    try:
        found = find_spec("locust") is not None
    except ValueError:  # it was tried and found missing
        found = False
    if not found:
        raise ModuleNotFoundError("no module named 'locust'", name="locust")


def wait_for_all(processes: "Sequence[subprocess.Popen[bytes]]", timeout_s: float) -> int | None:
    """Wait until all have ended, or one has failed, without which the others would not end.

    Returns:
        The status of one that failed, or 0; None: some had not ended after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    running = list(processes)
    while running:
        if time.monotonic() > deadline:
            return None
        with suppress(subprocess.TimeoutExpired):
            running[0].wait(_LOOK_S)
        failed = [process.returncode for process in processes if process.poll()]
        if failed:  # guard: load-worker-fails
            return failed[0]
        running = [process for process in running if process.returncode is None]
    return 0
