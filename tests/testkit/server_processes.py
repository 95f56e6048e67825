"""`inferry-serve` in processes of their own, which tests may kill and stop."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STOP_TIMEOUT_S = 20.0


class ServerProcess:
    """A server on a port of loopback that it keeps over restarts."""

    def __init__(self, repository: Path, *options: str) -> None:
        self._repository, self._options = repository, options
        self._port = 0
        self.start()

    def start(self) -> None:
        """Start it (again) on its port; returns once it is ready."""
        command = [str(Path(sys.executable).parent / "inferry-serve"), "--repository", str(self._repository)]
        command += ["--grpc-address", f"127.0.0.1:{self._port}", "--metrics-address", "127.0.0.1:0"]
        command += ["--log-level", "error", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.address = line.split("gRPC ")[1].split(",")[0]
        self._port = int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(_STOP_TIMEOUT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def terminate(self) -> None:
        """Ask it to end, and wait until it has."""
        self._process.terminate()
        self._process.wait(_STOP_TIMEOUT_S)

    def hang(self) -> None:
        """Its connections stay open and it says nothing more."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of `hang`."""
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def server_processes(repository: Path, count: int, *options: str) -> Iterator[list[ServerProcess]]:
    """Servers of one repository; killed on leaving."""
    servers: list[ServerProcess] = []
    try:
        servers += [ServerProcess(repository, *options) for _ in range(count)]
        yield servers
    finally:
        for server in servers:
            server.kill()
