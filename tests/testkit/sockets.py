"""Sockets, as one of their ends sees them."""

import socket


def is_open(connection: socket.socket) -> bool:
    """Whether the other end has not closed a connection; what it has sent is read."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
