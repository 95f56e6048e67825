"""`inferry-serve` in a process of its own, on free ports of loopback. It needs nothing but the server."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def started(repository: Path, *flags: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The process and the line that it prints when it is ready, empty if it ended before; stopped on leaving."""
    command = [sys.executable, "-m", "inferry_server", "--repository", str(repository), "--log-level", "error"]
    command += ["--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.terminate()
