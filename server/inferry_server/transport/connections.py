"""How many TCP connections a port has; gRPC does not tell, the Linux kernel does."""

from pathlib import Path

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED = "01"


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
