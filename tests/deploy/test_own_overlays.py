"""`make deploy-check ARGS=...` gives a true answer about an overlay of one's own, alone and with others."""

from pathlib import Path

import pytest

from manifests.__main__ import main
from manifests.bundle import K8S, write_overlay
from manifests.planting import POLICY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


def answer(capsys: pytest.CaptureFixture[str], *paths: Path) -> tuple[int, list[str]]:
    """The exit status, and the lines without the folders that they begin with."""
    code = main([str(path) for path in paths])
    where = " + ".join(str(path) for path in paths)
    return code, [line.removeprefix(f"{where}: ") for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("job", ["classify", "load", "train", "retrain"])
def test_a_job_alone_is_not_wrong_and_what_it_needs_is_listed(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = answer(capsys, K8S / "jobs" / job)
    assert code == 0, lines
    assert lines[-1].endswith("nothing wrong")
    claims = [line for line in lines if "needs the PersistentVolumeClaim inferry-models, which is not here" in line]
    assert len(claims) == (job in ("train", "retrain"))


def test_secrets_and_classes_of_the_cluster_are_listed_and_are_no_faults(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_overlay(
        folder,
        ("monitoring",),
        more="""
patches:
  - target: {kind: Deployment}
    patch: |-
      - {op: add, path: /spec/template/spec/priorityClassName, value: high}
      - {op: add, path: /spec/template/spec/imagePullSecrets, value: [{name: registry}]}
      - {op: add, path: /spec/template/spec/volumes/-, value: {name: more, secret: {secretName: company-tls}}}
      - op: add
        path: /spec/template/spec/containers/0/envFrom/-
        value: {secretRef: {name: database}}
""",
    )
    code, lines = answer(capsys, made)
    assert code == 0, lines
    for name in ("PriorityClass high", "Secret registry", "Secret company-tls", "Secret database"):
        assert f"note: Deployment inferry-server needs the {name}, which is not here" in lines


def test_the_nearest_name_is_said_beside_one_that_is_not_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_overlay(
        folder,
        ("tls",),
        more="""
patches:
  - target: {kind: Deployment}
    patch: |-
      - {op: replace, path: /spec/template/spec/serviceAccountName, value: inferry-servers}
""",
    )
    code, lines = answer(capsys, made)
    assert code == 0
    needed = "needs the ServiceAccount inferry-servers, which is not here (there is inferry-server)"
    assert f"note: Deployment inferry-server {needed}" in lines


def test_folders_are_checked_as_one(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    secured = write_overlay(folder, ("tls", "namespace"))
    code, lines = answer(capsys, secured, K8S / "jobs" / "classify")
    assert code == 1
    assert any("Job inferry-classify, container classify: the servers of" in line for line in lines)
    code, lines = answer(capsys, write_overlay(folder, ("jobs-tls",), resources=("jobs/classify",)), secured)
    assert (code, lines[-1].partition(" ")[2]) == (0, "objects, nothing wrong")
    assert not [line for line in lines if "which is not here" in line]
    code, lines = answer(capsys, K8S / "overlays" / "cpu", K8S / "overlays" / "canary", K8S / "publisher.yaml",
                         *[K8S / "jobs" / job for job in ("classify", "load", "train", "retrain")])  # fmt: skip
    assert code == 0, lines


def test_an_object_that_two_folders_have_in_different_ways_is_named(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    code, lines = answer(capsys, write_overlay(folder, ("hpa",)), write_overlay(folder, ()))
    assert code == 1
    assert [line for line in lines if line.startswith("Deployment inferry-server: two folders have it")]


def test_a_claim_of_two_folders_is_named(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Who deletes one of them deletes the data of the other."""
    again = write_overlay(folder, (), resources=("jobs/train",))
    code, lines = answer(capsys, K8S / "jobs" / "train", again)
    assert code == 1
    assert [line.partition(":")[0] for line in lines if "two folders have it: what deletes one" in line] == [
        "PersistentVolumeClaim inferry-train-data"
    ]
    code, lines = answer(capsys, K8S / "jobs" / "train", K8S / "jobs" / "retrain")
    assert code == 0, lines


def test_a_folder_that_is_given_twice_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(K8S / "jobs" / "train"), f"{K8S}/jobs/train/"]) == 0, capsys.readouterr().out


def test_tokens_in_the_clear_are_told(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, lines = answer(capsys, write_overlay(folder, ("tokens",)))
    assert code == 0, lines
    assert "note: Deployment inferry-server needs the Secret inferry-access, which is not here" in lines
    assert [line for line in lines if line.startswith("note: Deployment inferry-server: tokens travel in the clear")]
    assert not [line for line in answer(capsys, write_overlay(folder, ("tls", "tokens")))[1] if "in the clear" in line]


PREFIXED = """
namePrefix: vision-
patches:
  - target: {kind: Certificate, name: inferry-server}
    patch: |-
      - {op: add, path: /spec/dnsNames/-, value: vision-inferry-server}
      - {op: add, path: /spec/dnsNames/-, value: vision-inferry-server-vip}
  - target: {kind: ScaledObject}
    patch: |-
      - op: replace
        path: /spec/triggers
        value:
          - type: prometheus
            metadata: {serverAddress: "http://prometheus:9090", threshold: "1", query: "inferry_ready{pod=~'.*'}"}
"""


def test_names_with_a_prefix_go_on_naming_one_another(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    components = ("tls", "tokens", "monitoring", "keda", "gateway", "gateway-tls")
    code, lines = answer(capsys, write_overlay(folder, components, more=PREFIXED + POLICY))
    assert code == 0, lines
    assert not [line for line in lines if "which is not here" in line]


def test_queries_for_the_pods_of_another_deployment_are_named(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, lines = answer(capsys, write_overlay(folder, ("keda",), more="nameSuffix: -vision\n"))
    assert code == 1
    assert any("trigger busy asks for the pod inferry-server-" in line for line in lines)


def test_a_generated_name_that_its_user_does_not_know_is_named(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    hashed = POLICY.replace("disableNameSuffixHash: true", "disableNameSuffixHash: false")
    stable = write_overlay(folder, ("tls", "tokens"), more=hashed)
    canary = write_overlay(folder, ("canary",), resources=(f"overlays/{stable.name}",))
    assert answer(capsys, stable)[0] == 0
    code, lines = answer(capsys, stable, canary)
    assert code == 1
    (line,) = [line for line in lines if "Deployment inferry-server-canary needs the Secret inferry-access" in line]
    assert "(there is inferry-access-" in line


def test_two_sources_of_models_are_named(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, lines = answer(capsys, write_overlay(folder, ("models-image", "models-bucket")))
    assert code == 1
    assert "Deployment inferry-server: the volume models is emptyDir and image; expected one of them" in lines


def test_what_does_not_render_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    code, lines = answer(capsys, tmp_path)
    assert code == 1
    assert "missing.yaml" in lines[0]
    assert answer(capsys, tmp_path / "nowhere")[0] == 1
    (tmp_path / "own.yaml").write_text("kind: [Service\n")
    assert answer(capsys, tmp_path / "own.yaml")[0] == 1
