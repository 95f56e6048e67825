"""Who watches a server: ten tabs of the live page, and a Prometheus that asks for the metrics each second.

A tab of a server without an access policy keeps one event stream (`/live`) open, and asks for nothing else until
somebody draws; Prometheus accepts OpenMetrics, and keeps its connection.
"""

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TABS = 10
_NICEST = 19


@contextmanager
def watching(port: int) -> Iterator[None]:
    """The live page's stream in ten tabs, and the metrics read once a second, by one thread.

    It runs when nobody else wants the core: browsers and Prometheus have cores of their own.
    """
    done, selector = threading.Event(), selectors.DefaultSelector()
    with contextlib.ExitStack() as stack:
        stack.callback(selector.close)
        for _ in range(TABS):
            selector.register(_opened(stack, port, "/live"), selectors.EVENT_READ)
        thread = threading.Thread(target=_look, args=(selector, _opened(stack, port, "/metrics"), done))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _look(tabs: selectors.BaseSelector, scraper: socket.socket, done: threading.Event) -> None:
    """Read what comes, and ask for the metrics each second, as Prometheus does: in OpenMetrics' format."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICEST)  # of this thread alone, on Linux
    tabs.register(scraper, selectors.EVENT_READ)
    asked, space = time.monotonic(), bytearray(1 << 20)
    while not done.is_set():
        for key, _ in tabs.select(0.1):
            if not key.fileobj.recv_into(space):  # type: ignore[union-attr]  # registered by us
                raise ConnectionError("the server closed a watcher's connection")
        if time.monotonic() - asked >= 1:
            asked = time.monotonic()
            scraper.sendall(_request("/metrics"))


def _opened(stack: contextlib.ExitStack, port: int, path: str) -> socket.socket:
    opened = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
    opened.sendall(_request(path))
    return opened


def _request(path: str) -> bytes:
    accept = "application/openmetrics-text;version=1.0.0"
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\n\r\n".encode()
