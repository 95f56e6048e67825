"""How many TCP connections a port may have, and has; gRPC does not tell, the Linux kernel does."""

import re
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from inferry_server.transport.pacing import Pacing

TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
"""Where the kernel shows the TCP sockets of this network namespace: IPv4, and IPv6."""

_ESTABLISHED, _LISTENING = "01", "0A"
_OWN_FILES = 128  # descriptors of models, logs and the libraries; an idle server has some 40
_LEAST_CONNECTIONS = 16
_IN_USE = re.compile(rb"^TCP6?: inuse (\d+)", re.MULTILINE)
_PIECE = 64 << 10  # bytes that are read at a time; the kernel mostly gives a page
_CORES, _LONGEST_S = 1e-3, 5.0  # that counting may take; how old a count may be

COUNTS = (Path("/proc/self/net/sockstat"), Path("/proc/self/net/sockstat6"))
"""Where the kernel tells the number of TCP sockets of all ports together, at the same cost however many there are."""


def affordable_connections(wanted: int, *, others: int, files: int | None = None) -> int:
    """Connections that this process can have open: no more than are wanted, and than its descriptors are enough for.

    Args:
        wanted: by the setting.
        others: connections of other ports.
        files: descriptors that the process may have; None: what the system says.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if files is None else files
    if most == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(_LEAST_CONNECTIONS, most - others - _OWN_FILES))


def share_of_peer(wanted: int, *, of: int) -> int:
    """Connections that one peer may have.

    Args:
        wanted: by the setting; 0 stands for three quarters of all: one proxy may connect all clients, and a peer that
            takes too many must leave some to others.
        of: connections that all peers may have together.
    """
    return min(wanted or -(-3 * of // 4), of)


def can_count_connections() -> bool:
    """Whether this system has the kernel's tables."""
    return TABLES[0].exists()


class ConnectionCount:
    """Counts the connections established to a local port, in this network namespace.

    The kernel makes a table anew for each reader, which takes milliseconds. So only the tables in which the port
    listens are read, as seldom as keeps this within a thousandth of a core, but at least every five seconds. Any
    thread may call.

    Args:
        port: where something listens already.
        tables: of the kernel, for IPv4 and IPv6.
        clock: monotonic seconds.
        cpu_clock: seconds for which the calling thread has had a core.
    """

    def __init__(
        self,
        port: int,
        tables: Sequence[Path] = TABLES,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._port = port
        self._pacing = Pacing(_CORES, _LONGEST_S, clock=clock, cpu_clock=cpu_clock)
        self._count = 0
        there = [table for table in tables if table.exists()]
        self._tables = [table for table in there if count_sockets(table, port, _LISTENING)] or there

    def __call__(self) -> int:
        """How many there are now, or were when they were counted last."""
        if self._pacing.is_due():  # guard: connections-counted-seldom
            with self._pacing.work():
                self._count = sum(count_sockets(table, self._port, _ESTABLISHED) for table in self._tables)
        return self._count


def count_sockets(table: Path, port: int, state: str) -> int:
    """Sockets of a local port in one of the kernel's tables.

    The thread lets others run between the pieces that it reads: a table of ten thousand sockets takes milliseconds.

    Args:
        table: `/proc/net/tcp`, say: a heading, then a socket a line, with slot, local address, remote address and
            state; addresses and ports are hexadecimal.
        port: the local one.
        state: two hexadecimal digits.
    """
    # Only a local address has another one behind it. The pattern does not begin before it: that took six times as long.
    of_port = re.compile(rb":%04X \w+:\w+ %b " % (port, state.encode()))
    return sum(len(of_port.findall(lines)) for lines in pieces(table))


def sockets_in_use(files: Sequence[Path] = COUNTS) -> int:
    """TCP sockets of this network namespace, whosever they are; 0 where the system does not tell."""
    return sum(int(count) for file in files if file.exists() for count in _IN_USE.findall(file.read_bytes()))


def pieces(table: Path) -> Iterator[bytes]:
    """A file in pieces of whole lines."""
    rest = b""
    with table.open("rb", buffering=0) as file:
        while read := file.read(_PIECE):
            lines, end, rest = (rest + read).rpartition(b"\n")
            yield lines + end
    yield rest
