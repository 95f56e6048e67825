"""Jobs beside the server: nothing is wrong with them, and the programs know their arguments."""

import re
from typing import Any

import pytest

from inferry_client.cli import build_parser as client_parser
from inferry_client.connecting.addresses import parse_servers
from inferry_trainer.cli import build_parser as trainer_parser
from manifests.bundle import K8S, Bundle, Template, image_name, render
from manifests.check import faults
from manifests.facts import ServerFacts
from manifests.rules_objects import reference_faults
from manifests.schemas import VERSIONS

JOBS = sorted(path.name for path in (K8S / "jobs").iterdir())
PARSERS: dict[str, Any] = {"inferry-clients": client_parser, "inferry-trainer": trainer_parser}


def beside_the_server(job: str) -> Bundle:
    return Bundle([*render(K8S / "base").objects, *render(K8S / "jobs" / job).objects])


def template(bundle: Bundle) -> Template:
    (found,) = [one for one in bundle.templates() if not one.servers]
    return found


@pytest.mark.parametrize("job", JOBS)
def test_nothing_is_wrong_with_a_job_on_any_version_of_kubernetes(job: str, facts: ServerFacts) -> None:
    assert faults(beside_the_server(job), facts) == []


@pytest.mark.parametrize("job", JOBS)
def test_the_programs_know_the_arguments_and_find_their_folders_mounted(job: str) -> None:
    for container in template(render(K8S / "jobs" / job)).containers:
        PARSERS[image_name(container)]().parse_args(container["args"])
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        for path in re.findall(r"(?:^|=)(/\w+)", "\n".join(container["args"]), re.MULTILINE):
            assert path in mounts


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
