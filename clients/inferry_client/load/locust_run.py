"""A closed loop: Locust, headless, in a process of its own."""

import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from inferry_client.load.errors import LoadError
from inferry_client.load.payloads import Payloads, write_payloads
from inferry_client.load.records import load_records, summarize
from inferry_client.load.summary import LoadSummary

_GRACE_S = 60.0  # for Locust to start, and to write what it measured


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
    """

    address: str
    payloads: Payloads
    users: int
    spawn_rate: float
    timeout_s: float = 10.0
    objective_ms: float | None = None
    verbose: bool = False

    def run(self, duration_s: int) -> LoadSummary:
        """Let the users send for so long from the start of the first.

        Raises:
            LoadError: Locust did not come to its end.
        """
        with tempfile.TemporaryDirectory(prefix="inferry-load-") as temporary:
            folder = Path(temporary)
            write_payloads(self.payloads, folder)
            log_file = folder / "locust.log"
            environment = {key: value for key, value in os.environ.items() if not key.startswith("LOCUST_")} | {
                "INFERRY_LOAD_FOLDER": str(folder),
                "INFERRY_LOAD_TIMEOUT_S": str(self.timeout_s),
            }
            with log_file.open("w") as log:
                status = _wait(
                    subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                        self._command(duration_s),
                        env=environment,
                        cwd=folder,  # where no configuration of Locust's lies
                        stdin=subprocess.DEVNULL,
                        stdout=None if self.verbose else log,
                        stderr=None if self.verbose else log,
                    ),
                    timeout_s=duration_s + self.users / self.spawn_rate + self.timeout_s + _GRACE_S,
                )
            kept = list(folder.glob("*.records"))
            if status != 0 or not kept:
                said = log_file.read_text(errors="replace").strip().splitlines() or ["nothing"]
                raise LoadError(f"Locust ended with status {status}, saying {said[-1]!r}; --verbose shows all it says")
            return summarize(load_records(kept), objective_ms=self.objective_ms)

    def _command(self, duration_s: int) -> list[str]:
        locustfile = Path(__file__).with_name("locustfile.py")
        command = [sys.executable, "-m", "locust", "--headless", "--locustfile", str(locustfile)]
        command += ["--host", self.address, "--users", str(self.users), "--spawn-rate", str(self.spawn_rate)]
        command += ["--run-time", f"{duration_s}s", "--stop-timeout", str(math.ceil(self.timeout_s))]
        return [*command, "--only-summary", "--loglevel", "WARNING", "--exit-code-on-error", "0"]


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


def _wait(process: "subprocess.Popen[bytes]", *, timeout_s: float) -> int:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise LoadError(f"Locust did not end within {timeout_s:g} s and was stopped") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
