"""The manifests hold together: as they are written, and as kustomize renders them."""

import re
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from inferry_client.connecting.security import ENVIRONMENT
from inferry_server.addresses import parse_address
from inferry_server.settings.settings import ENVIRONMENT_PREFIX, Settings
from inferry_server.settings.sources import read_settings
from manifests import bundle

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
BASE = K8S / "base"
KUBERNETES_VERSION = "1.37"  # the newest that the schema package has
OLDEST_KUBERNETES_VERSION = "1.27"  # gRPC probes became stable
CLOSING_S = 5  # what a process needs to end after its last answer

Manifest = dict[str, Any]


class Manifests:
    """Objects that belong together, found by kind."""

    def __init__(self, objects: list[Manifest]) -> None:
        self.objects = objects

    def every(self, kind: str) -> list[Manifest]:
        """The objects of a kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str) -> Manifest:
        """The only object of its kind."""
        (found,) = self.every(kind)
        return found

    @property
    def pod(self) -> Manifest:
        """The Deployment's pod specification."""
        pod: Manifest = self.one("Deployment")["spec"]["template"]["spec"]
        return pod

    @property
    def container(self) -> Manifest:
        """The pod's only container."""
        (container,) = self.pod["containers"]
        found: Manifest = container
        return found

    @property
    def settings(self) -> Settings:
        """What the server would read from the configuration."""
        return read_settings({}, environment=self.one("ConfigMap")["data"])

    @property
    def container_ports(self) -> dict[str, int]:
        """The pod's ports by name."""
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @property
    def probes(self) -> dict[str, Manifest]:
        """The probes by name, without the word Probe."""
        return {kind: self.container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}


def load(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def written() -> Manifests:
    """The base's files, with the generated ConfigMap under its name without hash."""
    (kustomization,) = load((BASE / "kustomization.yaml").read_text())
    objects = [item for name in kustomization["resources"] for item in load((BASE / name).read_text())]
    for generated in kustomization["configMapGenerator"]:
        lines = "\n".join((BASE / name).read_text() for name in generated["envs"]).splitlines()
        data = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        metadata = {"name": generated["name"]}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return Manifests(objects)


def render(folder: Path) -> Manifests:
    return Manifests(bundle.render(folder).objects)


@pytest.fixture(params=["written", "rendered"], scope="module")
def base(request: pytest.FixtureRequest) -> Manifests:
    return written() if request.param == "written" else render(BASE)


@pytest.fixture(scope="module")
def publisher() -> Manifest:
    (pod,) = load((K8S / "publisher.yaml").read_text())
    return pod


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES_VERSION, KUBERNETES_VERSION])
def test_every_object_passes_the_kubernetes_schema(base: Manifests, publisher: Manifest, version: str) -> None:
    for item in [*base.objects, publisher]:
        kubernetes_validate.validate(item, version, strict=True)


def test_schema_check_refuses_a_misspelt_field() -> None:
    service = written().every("Service")[0]
    service["spec"]["clusterIp"] = "None"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, KUBERNETES_VERSION, strict=True)


def test_base_holds_what_a_server_needs_and_nothing_else(base: Manifests) -> None:
    assert sorted(item["kind"] for item in base.objects) == [
        "ConfigMap", "Deployment", "PersistentVolumeClaim", "PodDisruptionBudget", "Service", "Service",
        "ServiceAccount",
    ]  # fmt: skip


def test_every_selector_finds_the_pods(base: Manifests) -> None:
    deployment = base.one("Deployment")
    pod_labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        *[service["spec"]["selector"] for service in base.every("Service")],
        base.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        *[constraint["labelSelector"]["matchLabels"] for constraint in base.pod["topologySpreadConstraints"]],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= pod_labels.items()


def test_selectors_hold_nothing_that_a_release_changes(base: Manifests) -> None:
    assert set(base.one("Deployment")["spec"]["selector"]["matchLabels"]) == {
        "app.kubernetes.io/name",
        "app.kubernetes.io/component",
    }


def test_no_selector_takes_the_publisher_for_a_server(base: Manifests, publisher: Manifest) -> None:
    for service in base.every("Service"):
        assert not service["spec"]["selector"].items() <= publisher["metadata"]["labels"].items()


def test_rendered_objects_carry_the_recommended_labels() -> None:
    for item in render(BASE).objects:
        assert {f"app.kubernetes.io/{key}" for key in ("name", "component", "part-of", "version", "managed-by")} <= set(
            item["metadata"]["labels"]
        ), item["kind"]


def test_one_service_names_every_pod_and_one_has_an_address(base: Manifests) -> None:
    assert {service["metadata"]["name"]: service["spec"].get("clusterIP") for service in base.every("Service")} == {
        "inferry-server": "None", "inferry-server-vip": None,
    }  # fmt: skip
    for service in base.every("Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} == {"grpc", "http"}
        for port in service["spec"]["ports"]:
            assert port["port"] == base.container_ports[port["targetPort"]], "a headless Service translates no ports"


def test_server_listens_where_the_pod_says(base: Manifests) -> None:
    grpc_address, http_address = parse_address(str(base.settings.grpc_address)), base.settings.http_address
    assert {grpc_address.host, http_address.host} == {"0.0.0.0"}
    assert base.container_ports == {"grpc": grpc_address.port, "http": http_address.port}


def test_prometheus_is_sent_to_the_metrics_port(base: Manifests) -> None:
    annotations = base.one("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(base.settings.http_address.port)
    assert annotations["prometheus.io/scrape"] == "true"


def test_every_probe_asks_over_http_which_has_no_tls(base: Manifests) -> None:
    asked = {kind: probe["httpGet"] for kind, probe in base.probes.items()}
    ready, live = {"path": "/readyz", "port": "http"}, {"path": "/livez", "port": "http"}
    assert asked == {"startup": ready, "readiness": ready, "liveness": live}
    for probe in base.probes.values():
        assert not {"exec", "grpc", "tcpSocket"} & set(probe)


def test_a_start_has_time_to_load_and_a_roll_out_to_start(base: Manifests) -> None:
    startup = base.probes["startup"]
    budget_s = startup["periodSeconds"] * startup["failureThreshold"]
    assert budget_s >= base.settings.model_load_timeout_s
    assert base.one("Deployment")["spec"]["progressDeadlineSeconds"] >= budget_s + 300


def test_new_pods_get_a_share_of_clients_within_minutes(base: Manifests) -> None:
    assert base.settings.max_connection_age_s is not None
    assert base.settings.max_connection_age_s <= 300


def test_liveness_waits_longer_than_a_drain(base: Manifests) -> None:
    liveness = base.probes["liveness"]
    assert liveness["periodSeconds"] * (liveness["failureThreshold"] - 1) > base.settings.drain_timeout_s


def test_an_unready_pod_is_left_out_within_the_drain_delay(base: Manifests) -> None:
    readiness = base.probes["readiness"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < base.settings.drain_delay_s


def test_grace_period_covers_the_drain(base: Manifests) -> None:
    drain = base.settings.drain_delay_s + base.settings.drain_timeout_s
    if "preStop" in base.container.get("lifecycle", {}):
        drain += base.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert base.pod["terminationGracePeriodSeconds"] >= drain + CLOSING_S


def test_every_name_the_pod_refers_to_exists(base: Manifests) -> None:
    assert [source["configMapRef"]["name"] for source in base.container["envFrom"]] == [
        base.one("ConfigMap")["metadata"]["name"]
    ]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in base.pod["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [base.one("PersistentVolumeClaim")["metadata"]["name"]]
    assert base.pod["serviceAccountName"] == base.one("ServiceAccount")["metadata"]["name"]
    assert {mount["name"] for mount in base.container["volumeMounts"]} == {v["name"] for v in base.pod["volumes"]}


def test_a_changed_setting_renames_the_config_map(tmp_path: Path) -> None:
    changed = tmp_path / "base"
    shutil.copytree(BASE, changed)
    environment = changed / "server.env"
    environment.write_text(environment.read_text() + "INFERRY_LOG_LEVEL=debug\n")
    before, after = render(BASE).one("ConfigMap"), render(changed).one("ConfigMap")
    assert before["metadata"]["name"] != after["metadata"]["name"]
    assert re.fullmatch(r"inferry-server-[0-9a-z]{10}", after["metadata"]["name"])


def test_models_are_mounted_read_only_where_the_server_looks(base: Manifests) -> None:
    mounts = {mount["name"]: mount for mount in base.container["volumeMounts"]}
    assert mounts["models"]["mountPath"] == str(base.settings.repository)
    assert mounts["models"]["readOnly"]


def test_model_volume_can_be_published_to_while_replicas_read(base: Manifests, publisher: Manifest) -> None:
    claim = base.one("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert base.one("Deployment")["spec"]["replicas"] > 1
    (volume,) = publisher["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    (mount,) = publisher["spec"]["containers"][0]["volumeMounts"]
    assert not mount.get("readOnly", False)


def test_publisher_writes_as_the_user_that_reads(base: Manifests, publisher: Manifest) -> None:
    keys = ("runAsUser", "runAsGroup")
    assert [publisher["spec"]["securityContext"][key] for key in keys] == [
        base.pod["securityContext"][key] for key in keys
    ]


def test_pods_meet_the_restricted_pod_security_standard(base: Manifests, publisher: Manifest) -> None:
    for pod in (base.pod, publisher["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        assert all(set(volume) - {"name"} <= {"persistentVolumeClaim", "emptyDir"} for volume in pod["volumes"])
    assert base.one("ServiceAccount")["automountServiceAccountToken"] is False


def test_cpu_limit_is_whole_cores_that_are_reserved(base: Manifests) -> None:
    resources = base.container["resources"]
    assert resources["requests"] == resources["limits"]
    assert int(resources["limits"]["cpu"]) >= 1
    assert resources["limits"]["memory"]


def test_updates_and_evictions_keep_replicas_serving(base: Manifests) -> None:
    assert base.one("Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert base.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_images_are_tagged_and_the_servers_tag_is_the_version(base: Manifests, publisher: Manifest) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert base.container["image"] == f"inferry-server:{version}"
    for container in publisher["spec"]["containers"]:
        assert re.fullmatch(r"[a-z]+:\d+(\.\d+)+", container["image"])


def test_version_label_is_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {item["metadata"]["labels"]["app.kubernetes.io/version"] for item in render(BASE).objects} == {version}


def test_every_setting_named_in_deploy_is_one_that_server_client_or_load_test_reads() -> None:
    known = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.__dataclass_fields__}
    locustfile = (ROOT / "clients" / "inferry_client" / "load" / "locustfile.py").read_text()
    known |= set(re.findall(r"\bINFERRY_LOAD_[A-Z_]+\b", locustfile)) | set(ENVIRONMENT.values())
    for path in sorted((ROOT / "deploy").rglob("*")):
        if path.is_file():
            assert set(re.findall(r"\bINFERRY_[A-Z0-9_]+\b", path.read_text())) <= known, path


def readme_overlays() -> list[str]:
    readme = (ROOT / "deploy" / "README.md").read_text()
    return [block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "kind: Kustomization" in block]


@pytest.mark.parametrize("overlay", readme_overlays())
def test_overlays_in_the_readme_render_and_pass_the_schema(overlay: str, tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    (production,) = [block for block in readme_overlays() if "imagePullSecrets" in block]
    for name, text in (("production", production), ("example", overlay)):
        folder = tmp_path / "k8s" / "overlays" / name
        folder.mkdir(parents=True)
        (folder / "kustomization.yaml").write_text(text)
        (folder / "policy.toml").write_text("")
    rendered = render(folder)
    for item in rendered.objects:
        with suppress(kubernetes_validate.SchemaNotFoundError):  # of custom resources: `test_own_overlays.py` has them
            kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)
    settings = [item["metadata"]["name"] for item in rendered.every("ConfigMap")]
    named = [
        source["configMapRef"]["name"]
        for item in rendered.every("Deployment")
        for container in item["spec"]["template"]["spec"]["containers"]
        for source in container["envFrom"]
    ]
    assert named == settings
    assert rendered.objects
