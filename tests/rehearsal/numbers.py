"""What the manifests say: settings of the servers, and how a gateway calls them."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from manifests.bundle import K8S, Bundle, Manifest, render

# nginx's own page for 502 has a body, after which gRPC's clients do not retry; this reply has only a status.
NGINX_UNAVAILABLE = ("default_type application/grpc;", "add_header grpc-status 14 always;", "return 204;")
NOT_TAKEN = ("INFERRY_REPOSITORY", "INFERRY_GRPC_ADDRESS", "INFERRY_HTTP_ADDRESS", "INFERRY_LOG_FORMAT")


@dataclass(frozen=True)
class Numbers:
    """Of the base with the component gateway.

    Attributes:
        environment: of a server, but for what is this machine's own.
        grace_s: after SIGTERM, before a pod would be killed.
        replicas: of the Deployment.
        unready_after_s: how long readiness may fail before a pod is left out.
        policy: the specification of the BackendTrafficPolicy.
    """

    environment: dict[str, str]
    grace_s: float
    replicas: int
    unready_after_s: float
    policy: Manifest


def read_numbers(*, overridden: Mapping[str, str]) -> Numbers:
    """Render, and look.

    Args:
        overridden: settings that are to be others.
    """
    bundle = _rendered()
    spec = bundle.every("Deployment")[0]["spec"]
    pod = spec["template"]["spec"]
    readiness = pod["containers"][0]["readinessProbe"]
    settings: dict[str, str] = bundle.every("ConfigMap")[0]["data"]
    return Numbers(
        environment={name: value for name, value in settings.items() if name not in NOT_TAKEN} | dict(overridden),
        grace_s=pod["terminationGracePeriodSeconds"],
        replicas=spec["replicas"],
        unready_after_s=readiness["periodSeconds"] * readiness["failureThreshold"],
        policy=bundle.every("BackendTrafficPolicy")[0]["spec"],
    )


def _rendered() -> Bundle:
    with TemporaryDirectory() as folder:
        k8s = Path(folder) / "k8s"
        shutil.copytree(K8S, k8s)
        overlay = k8s / "overlays" / "rehearsal"
        overlay.mkdir()
        (overlay / "kustomization.yaml").write_text(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
            "resources: [../../base]\ncomponents: [../../components/gateway]\n"
        )
        return render(overlay)


def envoy_balancing(policy: Manifest) -> dict[str, Any]:
    """How the policy spreads calls; by the backends' own reports as Envoy Gateway hands it to Envoy."""
    kind = policy["loadBalancer"]["type"]
    if kind != "BackendUtilization":
        return {"lb_policy": {"LeastRequest": "LEAST_REQUEST", "RoundRobin": "ROUND_ROBIN", "Random": "RANDOM"}[kind]}
    name = "client_side_weighted_round_robin"
    package = f"type.googleapis.com/envoy.extensions.load_balancing_policies.{name}.v3"
    by_reports = {
        "name": f"envoy.load_balancing_policies.{name}",
        "typed_config": {"@type": f"{package}.ClientSideWeightedRoundRobin"},
    }
    return {"load_balancing_policy": {"policies": [{"typed_extension_config": by_reports}]}}


def envoy_retry(policy: Manifest) -> dict[str, Any]:
    """The policy's retries as Envoy Gateway hands them to Envoy: never twice to one host, where there is another."""
    retry = policy["retry"]
    back_off = retry["perRetry"]["backOff"]
    return {
        "retry_on": ",".join(retry["retryOn"]["triggers"]),
        "num_retries": retry["numRetries"],
        "retry_back_off": {
            "base_interval": seconds(back_off["baseInterval"]),
            "max_interval": seconds(back_off["maxInterval"]),
        },
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }


def envoy_outliers(policy: Manifest) -> dict[str, Any]:
    """The policy's passive health checks."""
    passive = policy["healthCheck"]["passive"]
    return {
        "consecutive_5xx": passive["consecutive5XxErrors"],
        "interval": seconds(passive["interval"]),
        "base_ejection_time": seconds(passive["baseEjectionTime"]),
        "max_ejection_percent": passive["maxEjectionPercent"],
    }


def client_retries(policy: Manifest) -> str:
    """The policy's retries for gRPC's own clients, as a service config."""
    retry = policy["retry"]
    back_off = retry["perRetry"]["backOff"]
    retries = {
        "maxAttempts": 1 + retry["numRetries"],
        "initialBackoff": seconds(back_off["baseInterval"]),
        "maxBackoff": seconds(back_off["maxInterval"]),
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": retries}]})


def nginx_balancing(policy: Manifest) -> str:
    """How the policy spreads calls, for an `upstream` of nginx, which goes round in turn unless told otherwise."""
    return {"LeastRequest": "least_conn;", "RoundRobin": "", "Random": "random;"}[policy["loadBalancer"]["type"]]


def nginx_retries(policy: Manifest) -> list[str]:
    """The policy's retries for a `location` of nginx, which never asks a server twice for one call.

    nginx counts attempts, not retries, and makes no pause between them. It retries only what it could not send: it
    keeps no copy of a gRPC request, and reads no gRPC status.
    """
    connect_timeout = policy["timeout"]["tcp"]["connectTimeout"]
    return [
        "grpc_next_upstream error non_idempotent;",
        f"grpc_next_upstream_tries {1 + policy['retry']['numRetries']};",
        f"grpc_connect_timeout {connect_timeout};",
        "error_page 502 = @unavailable;",
    ]


def nginx_server(policy: Manifest) -> str:
    """The policy's passive health checks, for a `server` of an upstream."""
    passive = policy["healthCheck"]["passive"]
    return f"max_fails={passive['consecutive5XxErrors']} fail_timeout={passive['baseEjectionTime']}"


def seconds(duration: str) -> str:
    """`250ms` as Envoy's JSON has it: `0.25s`.

    Raises:
        ValueError: another text than a number and a unit.
    """
    match = re.fullmatch(r"(\d+)(ms|s|m)", duration)
    if match is None:
        raise ValueError(f"expected a duration as 250ms, not {duration!r}")
    return f"{int(match[1]) * {'ms': 0.001, 's': 1, 'm': 60}[match[2]]:g}s"
