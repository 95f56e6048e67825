"""How many TCP connections a port may have, and has; gRPC does not tell, the Linux kernel does."""

import resource
from pathlib import Path

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED = "01"
_OWN_FILES = 128  # descriptors of models, logs and the libraries; an idle server has some 40
_LEAST_CONNECTIONS = 16


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


def can_count_connections() -> bool:
    """Whether this system has the kernel's tables."""
    return _TABLES[0].exists()


def count_connections(port: int) -> int:
    """Connections established to a local port, in this network namespace."""
    return sum(count_established(table.read_text(), port) for table in _TABLES if table.exists())


def count_established(table: str, port: int) -> int:
    """Connections established to a local port, in one of the kernel's tables.

    Args:
        table: as `/proc/net/tcp` shows it: a heading, then a socket a line, with slot, local
            address, remote address and state; addresses and ports are hexadecimal.
        port: the local one.
    """
    ending = f":{port:04X}"
    sockets = (line.split(maxsplit=4) for line in table.splitlines()[1:])
    return sum(socket[1].endswith(ending) and socket[3] == _ESTABLISHED for socket in sockets)
