"""Servers as pods, and what Kubernetes does with them: ready ones become endpoints, leaving ones stop being some."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rehearsal.numbers import NOT_TAKEN, Numbers

PROPAGATION_S = 1.0  # from a pod's Terminating to the last proxy that has heard of it; usually less
_SLACK_S = 5.0


class Balancer(Protocol):
    """What passes calls on to pods."""

    def set_endpoints(self, release: str, addresses: Sequence[str], /) -> None:
        """The pods of a release that are ready."""


class Pod:
    """One server, ready when made.

    Args:
        repository: of its models.
        numbers: of the manifests.
        row_ms: that its device is to take for a row; as long as it takes unless given.
        tls: certificate and key, for TLS.
    """

    def __init__(
        self, repository: Path, numbers: Numbers, *, row_ms: float | None = None, tls: tuple[Path, Path] | None = None
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in NOT_TAKEN}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])  # for `rehearsal.slowed`
        program = [str(Path(sys.executable).with_name("inferry-serve"))]
        slowed = [sys.executable, "-m", "rehearsal.slowed", str(row_ms)]
        command = [*(program if row_ms is None else slowed), "--repository", str(repository)]
        if tls is not None:
            command += ["--tls-certificate", str(tls[0]), "--tls-private-key", str(tls[1])]
        command += ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--log-level", "error"]
        self._grace_s = numbers.grace_s
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment | numbers.environment
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # printed when it is ready
        if "gRPC " not in line:
            raise RuntimeError(f"a server ended with status {self.process.wait()} before it was ready")
        self.address = line.split("gRPC ")[1].split(",")[0]

    def leave(self) -> int:
        """SIGTERM; its exit status, or that of SIGKILL when the grace is over."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self) -> None:
        """SIGKILL, as from a node that is gone."""
        self.process.kill()
        self.process.wait()


class Release:
    """A Deployment with its endpoints. For one thread.

    Args:
        name: `stable` or `canary`.
        gateway: is told of the endpoints.
        numbers: of the manifests.
    """

    def __init__(self, name: str, gateway: Balancer, numbers: Numbers) -> None:
        self._name, self._gateway, self._numbers = name, gateway, numbers
        self.pods: list[Pod] = []
        self.statuses: list[int] = []
        self._leaving: list[threading.Thread] = []

    def scale_up(self, repository: Path, count: int) -> None:
        """So many more pods."""
        for _ in range(count):
            self.pods.append(Pod(repository, self._numbers))
            self._tell()

    def scale_down(self, count: int) -> None:
        """So many fewer, the oldest first; returns once they have stopped being endpoints."""
        for pod in self.pods[:count]:
            self._let_go(pod)

    def roll(self, repository: Path) -> None:
        """A rolling update with one surplus pod and none unavailable, as the base has it."""
        for old in tuple(self.pods):
            self.scale_up(repository, 1)
            self._let_go(old)

    def lose(self, pod: Pod) -> None:
        """A node dies. Its address stays an endpoint until Kubernetes finds the pod unready."""
        pod.kill()
        time.sleep(self._numbers.unready_after_s)
        self.pods.remove(pod)
        self._tell()

    def join(self) -> None:
        """Wait for those that leave."""
        for thread in self._leaving:
            thread.join(self._numbers.grace_s + _SLACK_S)

    def end(self) -> None:
        """Kill what is left."""
        for pod in self.pods:
            pod.kill()

    def _let_go(self, pod: Pod) -> None:
        """SIGTERM comes at once, and the endpoints are told in parallel, a little later."""
        thread = threading.Thread(target=lambda: self.statuses.append(pod.leave()))
        thread.start()
        self._leaving.append(thread)
        time.sleep(PROPAGATION_S)
        self.pods.remove(pod)
        self._tell()

    def _tell(self) -> None:
        addresses: Sequence[str] = [pod.address for pod in self.pods]
        self._gateway.set_endpoints(self._name, addresses)
