"""Jobs beside the server: nothing is wrong with them, and the programs know their arguments."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from inferry_client.cli import build_parser as client_parser
from inferry_client.connecting.addresses import parse_servers
from inferry_client.console.stopping import STOPPED
from inferry_trainer.cli import build_parser as trainer_parser
from manifests.bundle import K8S, Bundle, Manifest, Template, image_name, render
from manifests.check import faults
from manifests.facts import ServerFacts
from manifests.needs import needs
from manifests.rules_programs import PARSERS, program_faults
from testkit import onnx_models
from testkit.servers import running_server

LOCUST_PORT = 5557  # Locust's own
JOBS = sorted(path.name for path in (K8S / "jobs").iterdir())


def beside_the_server(job: str) -> Bundle:
    return Bundle([*render(K8S / "base").objects, *render(K8S / "jobs" / job).objects])


def templates(bundle: Bundle) -> list[Template]:
    return [one for one in bundle.templates() if not one.servers]


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
        ("retrain", "--keep-traffic", "--verbose", "--label=canary without --keep-traffic"),
    ],
)
def test_an_argument_that_a_program_does_not_know_is_named(job: str, old: str, new: str, expected: str) -> None:
    bundle = render(K8S / "jobs" / job)
    for container in [one for found in templates(bundle) for one in found.containers]:
        assert image_name(container) in PARSERS
        container["args"] = [new if one == old else one for one in container["args"]]
    assert any(expected in fault for fault in program_faults(bundle))


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_none_of_the_servers_pods(job: str) -> None:
    bundle = beside_the_server(job)
    for labels in [one.labels for one in templates(bundle)]:
        for service in render(K8S / "base").every("Service"):
            assert not service["spec"]["selector"].items() <= labels.items()


def test_a_job_without_its_volume_is_named() -> None:
    bundle = beside_the_server("classify")
    bundle.objects.remove(bundle.every("PersistentVolumeClaim")[-1])
    assert {(need.kind, need.name) for need in needs(bundle)} == {("PersistentVolumeClaim", "inferry-results")}


def test_each_pod_of_the_indexed_job_takes_its_shard_and_a_stopped_one_is_started_again() -> None:
    job, merging = render(K8S / "jobs" / "classify").every("Job")
    assert job["spec"]["completionMode"] == "Indexed"
    chosen = client_parser().parse_args(job["spec"]["template"]["spec"]["containers"][0]["args"])
    assert chosen.shard == str(job["spec"]["completions"])
    assert parse_servers(chosen.server) == ("dns:///inferry-server:8001",)
    ignored = [rule for rule in job["spec"]["podFailurePolicy"]["rules"] if rule["action"] == "Ignore"]
    assert [rule["onExitCodes"]["values"] for rule in ignored if "onExitCodes" in rule] == [[STOPPED]]
    merged = client_parser().parse_args(merging["spec"]["template"]["spec"]["containers"][0]["args"])
    assert (merged.inputs, merged.out) == (["merge"], chosen.out)


def test_what_is_trained_once_is_what_is_exported() -> None:
    (job,) = render(K8S / "jobs" / "train").every("Job")
    pod = job["spec"]["template"]["spec"]
    trained = trainer_parser().parse_args(pod["initContainers"][0]["args"])
    exported = trainer_parser().parse_args(pod["containers"][0]["args"])
    assert exported.source == trained.out
    assert exported.label is None


def test_what_is_trained_every_week_takes_no_traffic_from_what_is_stable() -> None:
    (job,) = render(K8S / "jobs" / "retrain").every("CronJob")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    trained = trainer_parser().parse_args(pod["initContainers"][0]["args"])
    exported = trainer_parser().parse_args(pod["containers"][0]["args"])
    assert exported.source == trained.out
    assert (exported.label, exported.keep_traffic) == ("canary", True)


def load_pods() -> tuple[Manifest, Manifest]:
    master, workers = render(K8S / "jobs" / "load").every("Job")
    return master["spec"], workers["spec"]


def container_of(spec: Manifest) -> Manifest:
    found: Manifest = spec["template"]["spec"]["containers"][0]
    return found


def test_workers_find_the_master_which_waits_for_all_of_them() -> None:
    (master, workers), (service,) = load_pods(), render(K8S / "jobs" / "load").every("Service")
    (expected,) = [one for one in container_of(master)["args"] if one.startswith("--expect-workers=")]
    assert int(expected.partition("=")[2]) == workers["completions"] == workers["parallelism"]
    assert f"--master-host={service['metadata']['name']}" in container_of(workers)["args"]
    assert service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["ports"][0]["port"] == container_of(master)["ports"][0]["containerPort"] == LOCUST_PORT


@pytest.mark.slow
def test_the_load_tests_arguments_run(tmp_path: Path) -> None:
    """Master and two workers as the manifests start them, on this machine, for six seconds."""
    onnx_models.save_doubler(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with running_server(tmp_path) as server:
        other = {
            "--host": str(server.grpc_address), "--run-time": "6s", "--expect-workers": "2", "--users": "4",
            "--master-host": "127.0.0.1",
        }  # fmt: skip

        def start(spec: Manifest, *more: str) -> subprocess.Popen[str]:
            given = [one.partition("=") for one in container_of(spec)["args"]]
            arguments = [f"{flag}={other.get(flag, value)}" if value else flag for flag, _, value in given]
            program = [sys.executable, *container_of(spec)["command"][1:], *arguments, *more]
            variables = {one["name"]: one["value"] for one in container_of(spec)["env"]} | {
                "HOME": str(tmp_path), "INFERRY_LOAD_MODEL": "doubler"
            }  # fmt: skip
            return subprocess.Popen(
                program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **variables}
            )

        master, worker = load_pods()
        started = [start(master, f"--master-bind-port={port}", "--master-bind-host=127.0.0.1")]
        started += [start(worker, f"--master-port={port}") for _ in range(2)]
        try:
            printed = [process.communicate(timeout=90)[0] for process in started]
        finally:
            for process in started:
                process.kill()
        assert [process.returncode for process in started] == [0, 0, 0], printed
        assert "ModelInfer doubler" in printed[0]
