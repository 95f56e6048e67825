"""A certificate is renewed while clients call, over old and new connections: as the kubelet exchanges a Secret."""

import itertools
import ssl
import threading
import time
from pathlib import Path

import grpc
import numpy as np

from rehearsal.numbers import Numbers
from rehearsal.pods import Pod
from rehearsal.traffic import ask
from testkit.callers import Callers, own_channel
from testkit.certificates import Authority, Certificate

_NAMES = ("DNS:localhost", "IP:127.0.0.1")
_BEFORE_S, _AFTER_S, _SOON_S = 2.0, 3.0, 30.0
_CALLERS = 4
_PAUSE_S = 0.02


class Secret:
    """A mounted Secret: its files are links through one link, which is exchanged.

    Args:
        folder: where it is mounted.

    Attributes:
        certificate: of the server.
        key: of the certificate.
        authorities: of clients.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate, self.key, self.authorities = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))
        folder.mkdir()
        for path in (self.certificate, self.key, self.authorities):
            path.symlink_to(Path("..data") / path.name)

    def put(self, issued: Certificate, name: str, *, authorities: bytes = b"") -> None:
        """Show other contents: a certificate with its key, and PEM of the authorities whose clients are let in."""
        own = self._folder / f"..{name}"
        own.mkdir()
        (own / "tls.crt").write_bytes(issued.certificate.read_bytes())
        (own / "tls.key").write_bytes(issued.key.read_bytes())
        (own / "ca.crt").write_bytes(authorities)
        link = self._folder / "..data_tmp"
        link.symlink_to(own.name)
        link.replace(self._folder / "..data")


class RotationCallers(Callers):
    """Each calls over a connection that stays and over a new one, in turn. Any thread may read the counts."""

    def __init__(self, address: str, authority: bytes) -> None:
        super().__init__(_CALLERS)
        self._address, self._authority = address, authority
        self._lock = threading.Lock()
        self.answered, self.failures = 0, list[str]()

    def call(self, number: int) -> None:
        """Ask for the double of one vector after the other, each of its own values."""
        with self._channel() as kept:
            for count in itertools.count():
                if not self.goes_on(_PAUSE_S):
                    return
                self._ask(kept, number, count)
                with self._channel() as new:
                    self._ask(new, number, count + 0.5)

    def _channel(self) -> grpc.Channel:
        return own_channel(self._address, self._authority)

    def _ask(self, channel: grpc.Channel, number: int, count: float) -> None:
        _, failure = ask(channel, np.array([number, count, 1], np.float32))
        with self._lock:
            self.answered += not failure
            self.failures += [failure] if failure else []


def play_rotation(folder: Path, numbers: Numbers) -> RotationCallers:
    """Renew a server's certificate and key under traffic; returns who called, with what became of it.

    Args:
        folder: with the repository `one`.
        numbers: of the manifests.

    Raises:
        RuntimeError: the server does not show the new certificate.
    """
    authority = Authority(folder, "authority")
    first, second = authority.issue("first", *_NAMES), authority.issue("second", *_NAMES)
    secret = Secret(folder / "tls")
    secret.put(first, "first")
    pod = Pod(folder / "one", numbers, tls=(secret.certificate, secret.key))
    callers = RotationCallers(pod.address, authority.certificate.read_bytes())
    try:
        callers.start()
        time.sleep(_BEFORE_S)
        secret.put(second, "second")
        _wait_for(pod.address, second.certificate.read_text())
        time.sleep(_AFTER_S)
    finally:
        callers.end()
        pod.kill()
    return callers


def _wait_for(address: str, certificate: str) -> None:
    host, _, port = address.rpartition(":")
    ends = time.monotonic() + _SOON_S
    while ssl.get_server_certificate((host, int(port))).strip() not in certificate:
        if time.monotonic() > ends:
            raise RuntimeError(f"the server still shows the old certificate after {_SOON_S:g} s")
        time.sleep(0.1)
