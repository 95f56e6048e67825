"""Jobs beside the server: nothing is wrong with them, and the programs know their arguments."""

import pytest

from inferry_client.connecting.addresses import parse_servers
from manifests.bundle import K8S, Bundle, Template, image_name, render
from manifests.check import faults
from manifests.facts import ServerFacts
from manifests.rules_objects import reference_faults
from manifests.rules_programs import PARSERS, program_faults
from manifests.schemas import VERSIONS

JOBS = sorted(path.name for path in (K8S / "jobs").iterdir())


def beside_the_server(job: str) -> Bundle:
    return Bundle([*render(K8S / "base").objects, *render(K8S / "jobs" / job).objects])


def template(bundle: Bundle) -> Template:
    (found,) = [one for one in bundle.templates() if not one.servers]
    return found


@pytest.mark.parametrize("job", JOBS)
def test_nothing_is_wrong_with_a_job_on_any_version_of_kubernetes(job: str, facts: ServerFacts) -> None:
    assert faults(beside_the_server(job), facts) == []


@pytest.mark.parametrize(
    ("job", "old", "new", "expected"),
    [
        ("classify", "--timeout-s=60", "--time-out=60", "unrecognized arguments: --time-out=60"),
        ("classify", "--model=mnist", "--max-errors=many", "many"),
        ("retrain", "--label=canary", "--lable=canary", "--lable=canary"),
        ("retrain", "--repository=/models", "--repository=/elsewhere", "/elsewhere, and nothing is mounted there"),
    ],
)
def test_an_argument_that_a_program_does_not_know_is_named(job: str, old: str, new: str, expected: str) -> None:
    bundle = render(K8S / "jobs" / job)
    for container in template(bundle).containers:
        assert image_name(container) in PARSERS
        container["args"] = [new if one == old else one for one in container["args"]]
    assert any(expected in fault for fault in program_faults(bundle))


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_none_of_the_servers_pods(job: str) -> None:
    bundle = beside_the_server(job)
    labels = template(bundle).labels
    for service in bundle.every("Service"):
        assert not service["spec"]["selector"].items() <= labels.items()


def test_a_job_without_its_volume_is_named() -> None:
    bundle = beside_the_server("classify")
    bundle.objects.remove(bundle.every("PersistentVolumeClaim")[-1])
    assert [fault for fault in reference_faults(bundle) if "inferry-results" in fault]
    assert VERSIONS


def test_each_pod_of_the_indexed_job_has_its_own_pictures_and_results() -> None:
    (job,) = render(K8S / "jobs" / "classify").every("Job")
    assert job["spec"]["completionMode"] == "Indexed"
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert len([one for one in arguments if one.endswith("/$(JOB_COMPLETION_INDEX)")]) == 2
    (server,) = [one.partition("=")[2] for one in arguments if one.startswith("--server=")]
    assert parse_servers(server) == ("dns:///inferry-server:8001",)
