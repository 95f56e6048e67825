"""Between a client and a server: what goes through can be seen, and changed."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from inferry_server.addresses import Address

Change = Callable[[bytes], bytes]
"""What is passed on of the bytes that came."""

_END_S = 20.0


@contextmanager
def proxy(
    address: Address, *, to_server: Change = lambda data: data, to_client: Change = lambda data: data
) -> Iterator[str]:
    """The address of a proxy for one connection to a server; on leaving, the connection must be about to end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def connect() -> None:
            client, _ = listening.accept()
            with client, socket.create_connection((address.host, address.port)) as server:
                up = threading.Thread(target=_forward, args=(client, server, to_server))
                up.start()
                _forward(server, client, to_client)
                up.join()

        thread = threading.Thread(target=connect)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(_END_S)


def _forward(source: socket.socket, target: socket.socket, change: Change) -> None:
    with suppress(OSError):  # the other direction was closed
        while data := source.recv(1 << 16):
            target.sendall(change(data))
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
