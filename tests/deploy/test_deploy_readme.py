"""The first steps of deploy/README.md, word for word: what they name is there, and what they run understands them."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from chart.helm import run_helm, template
from chart.values import VALUES
from inferry_client.cli import build_parser as client_parser
from inferry_trainer.cli import build_parser as trainer_parser
from manifests.bundle import ROOT, Bundle, Template, parse, render
from manifests.check import faults
from manifests.facts import ServerFacts
from manifests.schemas import VERSIONS

README = (ROOT / "deploy" / "README.md").read_text()
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()


def commands() -> list[list[str]]:
    """The commands of the first steps, in their order."""
    section = README.split("## From nothing to a served model\n")[1].split("\n## ")[0]
    text = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    ")).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def cores(template: Template) -> float:
    """What a pod requests, as the scheduler counts: a part of a core may be in thousandths."""
    asked = [str(one["resources"]["requests"]["cpu"]) for one in template.spec["containers"]]
    return sum(float(one[:-1]) / 1000 if one.endswith("m") else float(one) for one in asked)


def option(command: list[str], *names: str) -> str | None:
    return next((command[place + 1] for place, word in enumerate(command) if word in names), None)


def applied(command: list[str]) -> list[dict[str, object]]:
    """What an apply applies, as its selector picks."""
    folder, file, wanted = option(command, "-k"), option(command, "-f"), option(command, "-l")
    bundle = render(ROOT / folder) if folder else parse((ROOT / str(file)).read_text())
    key, _, value = (wanted or "").partition("=")
    return [one for one in bundle.objects if wanted is None or one["metadata"].get("labels", {}).get(key) == value]


def made(command: list[str]) -> Iterator[Template]:
    return Bundle(applied(command)).templates()


def kubectl() -> Iterator[list[str]]:
    return (command for command in commands() if command[0] == "kubectl")


def test_they_are_few() -> None:
    assert 10 <= len(commands()) <= 20


def test_what_is_applied_is_there_in_time_and_in_the_namespace_of_the_rest() -> None:
    known: set[tuple[str, str]] = set()
    for command in kubectl():
        if "apply" in command:
            objects = applied(command)
            assert objects, command
            for one in objects:
                namespace = one["metadata"].get("namespace", option(command, "-n"))  # type: ignore[attr-defined]
                assert one["kind"] == "Namespace" or namespace == "inferry", one
                assert one["kind"] == "Namespace" or ("namespace", "inferry") in known
                known.add((str(one["kind"]).lower(), one["metadata"]["name"]))  # type: ignore[index]
        else:
            assert option(command, "-n") == "inferry", command
            for kind, name in re.findall(r"\b(pod|deployment)/([\w-]+)", " ".join(command)):
                assert (kind, name) in known, command
            for name in re.findall(r"\b(inferry-publisher)\b", " ".join(command)):
                assert ("pod", name) in known
    assert ("deployment", "inferry-server") in known


def test_server_and_publisher_fit_beside_each_other_on_a_node_of_two_cores() -> None:
    """On kind's one node the API server requests 250m, controllers and DNS 200 each, scheduler, etcd, network 100."""
    pods = [template for command in kubectl() if "apply" in command for template in made(command)]
    asked = {template.owner: cores(template) for template in pods}
    assert {"Deployment inferry-server", "Pod inferry-publisher"} <= set(asked)
    assert 0.95 + sum(asked.values()) <= 2


def test_images_are_built_from_targets_loaded_and_those_of_the_overlay() -> None:
    (build,) = [command for command in commands() if command[:2] == ["docker", "build"]]
    assert f" AS {option(build, '--target')}\n" in DOCKERFILE
    assert (ROOT / str(option(build, "--file"))).is_file()
    (load,) = [command for command in commands() if command[:3] == ["kind", "load", "docker-image"]]
    overlay = next(option(command, "-k") for command in kubectl() if option(command, "-k"))
    (server,) = render(ROOT / str(overlay)).every("Deployment")
    image = server["spec"]["template"]["spec"]["containers"][0]["image"]
    assert option(build, "--tag") == load[3] == image


def test_the_programs_know_their_arguments_and_the_model_is_the_same_throughout() -> None:
    models = set()
    for command in commands():
        program, arguments = Path(command[0]).name, command[1:]
        if program == "inferry-train":
            trainer_parser().parse_args(arguments)
        elif program == "inferry":
            models.add(client_parser().parse_args(arguments).model)
    (copied,) = [command for command in kubectl() if "cp" in command]
    assert models == {"digits"}
    assert "models/digits/1" in copied


def test_every_path_of_the_whole_document_is_there() -> None:
    for path in re.findall(r"(?<![\w/])deploy/[\w./-]+", README):
        assert (ROOT / path).exists() or "/overlays/production" in path, path
    for path in re.findall(r"^    (k8s/[\w./-]+|compose/|docker/\w+)", README, re.MULTILINE):
        assert (ROOT / "deploy" / path).exists(), path
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"^    make ([a-z-]+)", README, re.MULTILINE):
        assert target in targets


def test_every_helm_command_renders_without_a_fault(facts: ServerFacts) -> None:
    text = README.replace("\\\n", " ")
    installs = [shlex.split(line) for line in re.findall(r"^    (helm install inferry .*)$", text, re.MULTILINE)]
    assert len(installs) >= 2
    for command in installs:
        flags = [word for word in command[2:] if word != "--create-namespace"]
        bundle = parse(
            run_helm("template", *(str(ROOT / word) if word.startswith("deploy/") else word for word in flags))
        )
        assert faults(bundle, facts, versions=VERSIONS[-1:]) == [], command
        assert (
            "registry.example.com/"
            in bundle.every("Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"]
        )


def test_every_value_and_every_command_of_the_programs_is_one() -> None:
    known = {value.path for value in VALUES}
    for path in re.findall(r"--set(?:-json)? '?([\w.]+)=", README):
        assert path in known or any(path.startswith(f"{one}.") for one in known), path
    text = README.replace("\\\n", " ")
    for line in re.findall(r"^    \.venv/bin/(inferry(?:-train)? .*)$", text, re.MULTILINE):
        program, *arguments = shlex.split(line, comments=True)
        (trainer_parser if program == "inferry-train" else client_parser)().parse_args(arguments)


def test_a_part_of_a_gpu_may_be_asked_for(facts: ServerFacts) -> None:
    (resources,) = re.findall(r"--set-json 'resources=(\{.*\})'", README)
    bundle = template({"gpu.enabled": True, "resources": json.loads(resources)})
    assert faults(bundle, facts, versions=VERSIONS[-1:]) == []


def test_what_shows_a_promise_is_there() -> None:
    section = README.split("## Guarantees")[1].split("\n## ")[0]
    paths = re.findall(r"`(tests/[\w/.]+)`", section)
    assert len(paths) >= 5
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_every_component_is_in_the_table_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", README.split("| component |")[1].split("\n\n")[0], re.MULTILINE)
    assert sorted(rows) == sorted(path.name for path in (ROOT / "deploy" / "k8s" / "components").iterdir())
    assert isinstance(render(ROOT / "deploy/k8s/base"), Bundle)
