"""A real Envoy as a gateway would run it; endpoints and weights come from files that it watches."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manifests.bundle import Manifest
from rehearsal.numbers import envoy_balancing, envoy_outliers, envoy_retry, seconds

ENVOY = Path(sys.executable).with_name("envoy")  # the development environment brings it
RELEASES = ("stable", "canary")
_START_S = 20.0
_HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


class Gateway:
    """Where clients connect. For one thread.

    Args:
        folder: for its files.
        policy: the specification of a BackendTrafficPolicy.
    """

    def __init__(self, folder: Path, policy: Manifest) -> None:
        self._folder, self._policy = folder, policy
        self.address = ""
        self.set_weights({"stable": 100, "canary": 0})
        for release in RELEASES:
            self.set_endpoints(release, ())
        (folder / "envoy.json").write_text(json.dumps(self._bootstrap()))

    def set_endpoints(self, release: str, addresses: Sequence[str]) -> None:
        """The pods of a release that are ready, as a gateway's controller tells."""
        endpoints = [{"endpoint": {"address": _socket(address)}} for address in addresses]
        kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
        self._put(
            f"{release}.json", [{"@type": kind, "cluster_name": release, "endpoints": [{"lb_endpoints": endpoints}]}]
        )

    def set_weights(self, weights: Mapping[str, int]) -> None:
        """The shares of the releases, as the GRPCRoute's `backendRefs` have them."""
        clusters = [{"name": release, "weight": weight} for release, weight in weights.items()]
        route = {
            "match": {"prefix": "/", "grpc": {}},
            "route": {
                "weighted_clusters": {"clusters": clusters},
                "timeout": "0s",
                "max_stream_duration": {"grpc_timeout_header_max": "0s"},
                "retry_policy": envoy_retry(self._policy),
            },
        }
        kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
        hosts = [{"name": "inferry", "domains": ["*"], "routes": [route]}]
        self._put("routes.json", [{"@type": kind, "name": "routes", "virtual_hosts": hosts}])

    @contextmanager
    def running(self) -> Iterator["Gateway"]:
        """Envoy, from now until leaving."""
        command = [ENVOY, "-c", self._folder / "envoy.json", "--admin-address-path", self._folder / "admin"]
        with (self._folder / "envoy.log").open("w") as log:
            process = subprocess.Popen(
                [*map(str, command), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"],
                stderr=log,
                stdout=log,
            )
            try:
                self.address = self._listening(process)
                yield self
            finally:
                process.terminate()
                process.wait()

    def validate(self) -> None:
        """Have Envoy read the configuration.

        Raises:
            ValueError: with what it says.
        """
        command = [str(ENVOY), "--mode", "validate", "-c", str(self._folder / "envoy.json"), "--disable-hot-restart"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ValueError(done.stderr[-2000:])

    def _listening(self, process: "subprocess.Popen[bytes]") -> str:
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends and process.poll() is None:
            try:
                admin = (self._folder / "admin").read_text()
                with urllib.request.urlopen(f"http://{admin}/listeners?format=json", timeout=1) as answer:
                    (listener,) = json.load(answer)["listener_statuses"]
                return f"127.0.0.1:{listener['local_address']['socket_address']['port_value']}"
            except (OSError, ValueError, KeyError):
                time.sleep(0.05)  # Envoy tells nobody that it listens
        raise RuntimeError(f"Envoy does not listen: {(self._folder / 'envoy.log').read_text()[-2000:]}")

    def _put(self, name: str, resources: list[Any]) -> None:
        """Written beside and moved: Envoy watches for moves."""
        (self._folder / f"{name}.new").write_text(json.dumps({"version_info": "0", "resources": resources}))
        (self._folder / f"{name}.new").replace(self._folder / name)

    def _watched(self, name: str) -> dict[str, Any]:
        source = {"path": str(self._folder / name), "watched_directory": {"path": str(self._folder)}}
        return {"path_config_source": source, "resource_api_version": "V3"}

    def _bootstrap(self) -> dict[str, Any]:
        network = "type.googleapis.com/envoy.extensions.filters.network"
        manager = {
            "@type": f"{network}.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "grpc",
            "codec_type": "HTTP2",
            "rds": {"route_config_name": "routes", "config_source": self._watched("routes.json")},
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }
            ],
        }
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        return {
            "node": {"id": "gateway", "cluster": "gateway"},
            "admin": {"address": _socket("127.0.0.1:0")},
            "static_resources": {
                "listeners": [
                    {"name": "grpc", "address": _socket("127.0.0.1:0"), "filter_chains": [{"filters": filters}]}
                ],
                "clusters": [self._cluster(release) for release in RELEASES],
            },
        }

    def _cluster(self, release: str) -> dict[str, Any]:
        return {
            "name": release,
            "type": "EDS",
            "eds_cluster_config": {"eds_config": self._watched(f"{release}.json")},
            "connect_timeout": seconds(self._policy["timeout"]["tcp"]["connectTimeout"]),
            **envoy_balancing(self._policy),
            "circuit_breakers": {"thresholds": [{"max_retries": self._policy["circuitBreaker"]["maxParallelRetries"]}]},
            "outlier_detection": envoy_outliers(self._policy),
            "typed_extension_protocol_options": _HTTP2,
        }


def _socket(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
