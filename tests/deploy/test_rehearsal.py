"""The rehearsal takes the manifests' numbers, and Envoy takes what is made of them."""

import json
from pathlib import Path

import pytest

from manifests.bundle import K8S, ROOT, render
from rehearsal.__main__ import main
from rehearsal.gateway import Gateway
from rehearsal.nginx import Nginx
from rehearsal.numbers import (
    NGINX_UNAVAILABLE,
    client_retries,
    envoy_outliers,
    envoy_retry,
    nginx_retries,
    read_numbers,
    seconds,
)


def test_numbers_are_those_of_the_base() -> None:
    numbers = read_numbers(overridden={"INFERRY_MAX_CONNECTION_AGE_S": "15"})
    spec = render(K8S / "base").every("Deployment")[0]["spec"]
    assert numbers.grace_s == spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert numbers.unready_after_s < float(numbers.environment["INFERRY_DRAIN_DELAY_S"])
    assert numbers.environment["INFERRY_MAX_CONNECTION_AGE_S"] == "15"


def test_retries_go_to_another_host_and_are_not_for_full_servers(tmp_path: Path) -> None:
    retry = envoy_retry(read_numbers(overridden={}).policy)
    assert {"reset", "unavailable", "connect-failure"} <= set(retry["retry_on"].split(","))
    assert "resource-exhausted" not in retry["retry_on"]
    (predicate,) = retry["retry_host_predicate"]
    assert predicate["name"].endswith("previous_hosts")
    assert retry["num_retries"] >= 2


def test_envoy_accepts_the_configuration(tmp_path: Path) -> None:
    policy = read_numbers(overridden={}).policy
    assert envoy_outliers(policy)["max_ejection_percent"] < 100
    Gateway(tmp_path, policy).validate()


def test_envoy_refuses_a_trigger_or_a_number_that_it_does_not_know(tmp_path: Path) -> None:
    policy = read_numbers(overridden={}).policy
    policy["healthCheck"]["passive"]["maxEjectionPercent"] = 101
    with pytest.raises(ValueError, match="MaxEjectionPercent"):
        Gateway(tmp_path, policy).validate()


def test_nginx_accepts_the_configuration_and_needs_a_server(tmp_path: Path) -> None:
    nginx = Nginx(tmp_path, read_numbers(overridden={}).policy)
    with pytest.raises(ValueError, match="at least one address"):
        nginx.set_endpoints("stable", ())
    nginx.set_endpoints("stable", ("127.0.0.1:8001", "127.0.0.1:8002"))
    nginx.validate()


def test_nginx_refuses_a_number_that_it_does_not_know(tmp_path: Path) -> None:
    policy = read_numbers(overridden={}).policy
    policy["healthCheck"]["passive"]["consecutive5XxErrors"] = "some"
    nginx = Nginx(tmp_path, policy)
    nginx.set_endpoints("stable", ("127.0.0.1:8001",))
    with pytest.raises(ValueError, match="max_fails=some"):
        nginx.validate()


def test_clients_and_nginx_retry_as_often_as_envoy() -> None:
    policy = read_numbers(overridden={}).policy
    (method,) = json.loads(client_retries(policy))["methodConfig"]
    attempts = 1 + envoy_retry(policy)["num_retries"]
    assert method["retryPolicy"]["maxAttempts"] == attempts
    assert f"grpc_next_upstream_tries {attempts};" in nginx_retries(policy)


def test_the_directives_of_nginx_are_those_of_the_readme() -> None:
    readme = (ROOT / "deploy" / "README.md").read_text()
    for directive in (*nginx_retries(read_numbers(overridden={}).policy), *NGINX_UNAVAILABLE):
        assert f" {directive}\n" in readme


@pytest.mark.parametrize(("text", "expected"), [("25ms", "0.025s"), ("10s", "10s"), ("2m", "120s")])
def test_durations_are_envoys(text: str, expected: str) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "25", "1h", "0.5s"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        seconds(text)


@pytest.mark.slow
def test_no_request_fails_in_the_rehearsal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().err
