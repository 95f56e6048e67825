"""`inferry-serve` in a process of its own, on free ports of loopback. It needs nothing but the server."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def started(
    repository: Path, *flags: str, program: Sequence[str] = ("inferry_server",)
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The process and the line that it prints when it is ready, empty if it ended before; stopped on leaving.

    Args:
        repository: what it serves.
        flags: of the server.
        program: the module that runs, and its own arguments before the flags.
    """
    command = [sys.executable, "-m", *program, "--repository", str(repository), "--log-level", "error"]
    command += ["--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.terminate()
