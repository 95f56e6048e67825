"""The rehearsal takes the manifests' numbers, and Envoy takes what is made of them."""

from pathlib import Path

import pytest

from manifests.bundle import K8S, render
from rehearsal.__main__ import main
from rehearsal.gateway import Gateway
from rehearsal.numbers import envoy_outliers, envoy_retry, read_numbers, seconds


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
