"""Callers of a server, each on a thread of its own: they begin together, and end when each has its answer."""

import threading
from types import TracebackType
from typing import Self

import grpc

from testkit.certificates import Certificate

Options = tuple[tuple[str, str | int], ...]


class Callers:
    """Threads that call from `start` to `end`, or while the context lasts. What a caller does is `call`.

    Args:
        count: callers.
    """

    def __init__(self, count: int) -> None:
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        self._broken: list[Exception] = []

    def call(self, number: int) -> None:
        """Be one caller: ask as long as `goes_on`, and count what comes. What it raises ends this caller alone."""
        raise NotImplementedError

    def goes_on(self, pause_s: float) -> bool:
        """Whether a caller asks again, after a pause, which `end` cuts short."""
        return not self._ended.wait(pause_s)

    def start(self) -> None:
        """They call from now on."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Have them ask no more, and wait until each has its answer.

        Raises:
            RuntimeError: a caller broke, so that fewer called than should have.
        """
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if self._broken:
            raise RuntimeError(f"{len(self._broken)} of {len(self._threads)} callers broke") from self._broken[0]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def _run(self, number: int) -> None:
        try:
            self.call(number)
        except Exception as error:  # noqa: BLE001 - `end` tells whoever waits for the callers
            self._broken.append(error)


def own_channel(
    target: str,
    authorities: bytes | None = None,
    *,
    identity: Certificate | None = None,
    retries: str | None = None,
    options: Options = (),
) -> grpc.Channel:
    """A connection that no other channel shares.

    Args:
        target: the server's address.
        authorities: PEM of those whose certificates the caller accepts; None: without TLS.
        identity: the caller's own certificate; None: it has none.
        retries: a gRPC service config that has some; None: gRPC sends nothing twice.
        options: further ones of gRPC.
    """
    repeating: Options = (("grpc.enable_retries", 0),) if retries is None else (("grpc.service_config", retries),)
    settled = (("grpc.use_local_subchannel_pool", 1), *repeating, *options)
    if authorities is None:
        return grpc.insecure_channel(target, options=settled)
    own = (None, None) if identity is None else (identity.key.read_bytes(), identity.certificate.read_bytes())
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(authorities, *own), options=settled)
