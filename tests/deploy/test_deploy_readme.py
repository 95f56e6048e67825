"""The first steps of deploy/README.md, word for word: what they name is there, and what they run understands them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from chart.helm import run_helm, template
from chart.values import VALUES
from inferry_client.cli import build_parser as client_parser
from inferry_trainer.cli import build_parser as trainer_parser
from manifests.__main__ import local_images, main
from manifests.bundle import K8S, KUBECTL, ROOT, Bundle, Template, parse, render
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


def test_the_picture_of_the_first_steps_is_one_of_a_digit(tmp_path: Path) -> None:
    (command,) = [one for one in commands() if Path(one[0]).name == "python"]
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    asked = [one[2] for one in commands() if Path(one[0]).name == "inferry"]
    for name in asked:
        with Image.open(tmp_path / name) as picture:
            low, high = picture.getextrema()
            assert (picture.mode, picture.size) == ("L", (8, 8))
            assert (low, high) == (0, 225)
    assert asked


def kubectl_lines() -> list[str]:
    """Those of the whole document, in the text too."""
    text = README.replace("\\\n", " ")
    in_text = [line for line in re.findall(r"`(kubectl [^`]+)`", text) if len(line.split()) > 3]
    return [*dict.fromkeys(re.findall(r"^    (kubectl .*)$", text, re.MULTILINE) + in_text)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The manifests with the overlay that the reader writes, and a model."""
    folder = tmp_path
    shutil.copytree(K8S, folder / "deploy/k8s")
    (overlay,) = [one for one in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "imagePullSecrets" in one]
    (folder / "deploy/k8s/overlays/production").mkdir()
    (folder / "deploy/k8s/overlays/production/kustomization.yaml").write_text(overlay)
    (folder / "models/digits/1").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("line", kubectl_lines())
def test_kubectl_understands_every_command_and_finds_its_files(line: str, checkout: Path) -> None:
    """It fails because there is no cluster, and for nothing before that."""
    words = shlex.split(line, comments=True)[1:]
    done = subprocess.run(
        [KUBECTL, "--server=http://127.0.0.1:9", *words], cwd=checkout, capture_output=True, text=True, check=False,
        env={"HOME": str(checkout), "PATH": "/usr/bin:/bin"}, timeout=60,
    )  # fmt: skip
    assert "refused" in done.stderr, done.stderr


def test_the_overlay_of_ones_own_pulls_with_a_secret_from_its_registry(checkout: Path) -> None:
    rendered = render(checkout / "deploy/k8s/overlays/production")
    (made,) = [shlex.split(line) for line in kubectl_lines() if "create secret docker-registry" in line]
    (account,) = rendered.every("ServiceAccount")
    assert account["imagePullSecrets"] == [{"name": made[4]}]
    (template,) = rendered.templates()
    assert template.spec["serviceAccountName"] == account["metadata"]["name"]
    registry = option([part for word in made for part in word.split("=")], "--docker-server")
    assert template.servers[0]["image"].startswith(f"{registry}/")


def test_every_overlay_of_the_document_is_right(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the reader checks them: each alone, and a canary beside what it is a canary of."""
    overlays = checkout / "deploy/k8s/overlays"
    (policy,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    for number, text in enumerate(re.findall(r"```yaml\n(apiVersion: kustomize.*?)```", README, re.DOTALL)):
        folder = overlays / f"of-the-document-{number}"
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(text)
        (folder / "policy.toml").write_text(policy)
        beside = [str(overlays / "production")] if "../production" in text else []
        assert main([*beside, str(folder)]) == 0, capsys.readouterr().out
    assert number >= 3


def test_the_check_says_which_images_no_registry_has(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert local_images(render(checkout / "deploy/k8s/overlays/production")) == []
    folder = str(checkout / "deploy/k8s/overlays/dev")
    assert main([folder]) == 0
    note, verdict = capsys.readouterr().out.splitlines()
    assert note.startswith(f"{folder}: note: inferry-server:0.1.0 names no registry")
    assert verdict == f"{folder}: 8 objects, nothing wrong"


def test_helm_knows_the_flags_of_an_upgrade() -> None:
    known = run_helm("upgrade", "--help") + run_helm("install", "--help")
    for line in re.findall(r"`(helm (?:upgrade|install) [^`]*)`", README):
        for flag in re.findall(r"--[\w-]+", line):
            assert re.search(rf"{flag}\b", known), line


def test_what_is_asked_of_a_server_is_the_model_that_was_published() -> None:
    text = README.replace("\\\n", " ")
    for line in re.findall(r"^    (?:\.venv/bin/inferry classify|docker compose .* load) .*$", text, re.MULTILINE):
        assert option(shlex.split(line, comments=True), "--model") == "digits", line


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
