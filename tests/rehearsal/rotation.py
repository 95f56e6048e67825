"""A certificate is renewed while clients call, over old and new connections: as the kubelet exchanges a Secret."""

import ssl
import threading
import time
from pathlib import Path

import grpc
import numpy as np

from rehearsal.numbers import Numbers
from rehearsal.pods import Pod
from rehearsal.traffic import DEADLINE_S, infer_request
from testkit.certificates import Authority, Certificate

_NAMES = ("DNS:localhost", "IP:127.0.0.1")
_BEFORE_S, _AFTER_S, _SOON_S = 2.0, 3.0, 30.0
_CALLERS = 4


class Secret:
    """A mounted Secret: its files are links through one link, which is exchanged.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        folder.mkdir()
        for path in (self.certificate, self.key):
            path.symlink_to(Path("..data") / path.name)

    def put(self, issued: Certificate, name: str) -> None:
        """Show other contents."""
        own = self._folder / f"..{name}"
        own.mkdir()
        (own / "tls.crt").write_bytes(issued.certificate.read_bytes())
        (own / "tls.key").write_bytes(issued.key.read_bytes())
        link = self._folder / "..data_tmp"
        link.symlink_to(own.name)
        link.replace(self._folder / "..data")


class Callers:
    """Each calls over a connection that stays and over a new one, in turn. Any thread may read the counts."""

    def __init__(self, address: str, authority: bytes) -> None:
        self._address, self._authority = address, authority
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call) for _ in range(_CALLERS)]
        self.answered, self.failures = 0, list[str]()

    def start(self) -> None:
        """From now on."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Until each has its answer."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with self._channel() as kept:
            while not self._ended.wait(0.02):
                self._ask(kept)
                with self._channel() as new:
                    self._ask(new)

    def _channel(self) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        return grpc.secure_channel(self._address, grpc.ssl_channel_credentials(self._authority), options=options)

    def _ask(self, channel: grpc.Channel) -> None:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer"
        )
        failure = ""
        try:
            infer(infer_request(np.ones(3, np.float32)), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            failure = f"{error.code().name}: {error.details()}"
        with self._lock:
            self.answered += not failure
            self.failures += [failure] if failure else []


def play_rotation(folder: Path, numbers: Numbers) -> Callers:
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
    callers = Callers(pod.address, authority.certificate.read_bytes())
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
