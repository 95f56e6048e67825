"""Objects that are applied together, and the pods that they make."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from manifests.made_of import digest

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
KUBECTL = Path(sys.executable).with_name("kubectl")  # the development environment brings it

SHORT_LIVED = {"GOGC": "off"}  # for programs in Go that end at once: a quarter of their time went into freeing memory

RUNTIMES = ("ClusterServingRuntime", "ServingRuntime")
KSERVE_CONTAINER = "kserve-container"  # KServe takes the container of this name, and fails without one

Manifest = dict[str, Any]
_LABEL = "app.kubernetes.io"
_OF_A_CONTAINER = ("args", "env", "image", "resources", "ports", "volumeMounts", "startupProbe", "readinessProbe")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast


@dataclass(frozen=True)
class Template:
    """A pod that an object makes.

    Attributes:
        owner: kind and name of the object.
        metadata: of the pod.
        spec: of the pod.
        namespace: of the object, if it states one.
    """

    owner: str
    metadata: Manifest
    spec: Manifest
    namespace: str | None = None

    @property
    def kind(self) -> str:
        """Of the object."""
        return self.owner.partition(" ")[0]

    @property
    def name(self) -> str:
        """Of the object."""
        return self.owner.partition(" ")[2]

    @property
    def labels(self) -> dict[str, str]:
        """Of the pod."""
        labels: dict[str, str] = self.metadata.get("labels") or {}
        return labels

    @property
    def containers(self) -> list[Manifest]:
        """All of them, those that run first too."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def running(self) -> list[Manifest]:
        """Those that run beside one another, for as long as the pod is there."""
        beside = [one for one in self.spec.get("initContainers", []) if one.get("restartPolicy") == "Always"]
        return [*beside, *self.spec["containers"]]

    @property
    def servers(self) -> list[Manifest]:
        """The containers that run Inferry's server, from its image or under another name of that."""
        return [one for one in self.spec["containers"] if self._is_server(one)]

    def _is_server(self, container: Manifest) -> bool:
        if image_name(container).startswith("inferry-server"):
            return True
        if self.is_kserves:
            return bool(container["name"] == KSERVE_CONTAINER)
        return self.is_labelled and bool(container["name"] == "server")

    @property
    def is_kserves(self) -> bool:
        """Whether KServe makes the pod."""
        return self.kind in (*RUNTIMES, "InferenceService")

    @property
    def is_labelled(self) -> bool:
        """Whether the labels say that it is a server of Inferry's."""
        component = self.labels.get(f"{_LABEL}/component", "")
        return self.labels.get(f"{_LABEL}/name") == "inferry" and component.partition("-")[0] == "server"


class Bundle:
    """Objects by kind and name."""

    def __init__(self, objects: list[Manifest]) -> None:
        self.objects = objects

    def every(self, *kinds: str) -> list[Manifest]:
        """The objects of these kinds."""
        return [one for one in self.objects if one["kind"] in kinds]

    def names(self, *kinds: str) -> set[str]:
        """Of the objects of these kinds."""
        return {one["metadata"]["name"] for one in self.every(*kinds)}

    def find(self, kind: str, name: str) -> Manifest | None:
        """The object, if there is one."""
        return next((one for one in self.every(kind) if one["metadata"]["name"] == name), None)

    def beside(self, namespace: str | None) -> "Bundle":
        """What an object in this namespace can name: the objects of the namespace, and those of the cluster."""
        return Bundle([one for one in self.objects if one["metadata"].get("namespace") in (namespace, None)])

    def templates(self) -> Iterator[Template]:
        """The pods of all objects."""
        for one in self.objects:
            owner, spec, namespace = label(one), one.get("spec") or {}, one["metadata"].get("namespace")
            match one["kind"]:
                case "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job":
                    yield Template(owner, spec["template"].get("metadata", {}), spec["template"]["spec"], namespace)
                case "CronJob":
                    template = spec["jobTemplate"]["spec"]["template"]
                    yield Template(owner, template.get("metadata", {}), template["spec"], namespace)
                case "Pod":
                    yield Template(owner, one["metadata"], spec, namespace)
                case "ClusterServingRuntime" | "ServingRuntime":
                    yield Template(
                        owner, {**one["metadata"], "annotations": spec.get("annotations", {})}, spec, namespace
                    )
                case "InferenceService":
                    yield from self._predictor(one)

    def _predictor(self, service: Manifest) -> Iterator[Template]:
        """The pod that KServe makes of an InferenceService and its runtime, where that is here."""
        predictor = service["spec"]["predictor"]
        model = predictor.get("model") or {}
        runtimes = [one for one in self.every(*RUNTIMES) if one["metadata"]["name"] == model.get("runtime")]
        for runtime in runtimes[:1]:
            containers = [
                _overlaid(one, model) if one["name"] == KSERVE_CONTAINER else one
                for one in runtime["spec"]["containers"]
            ]
            spec = {**runtime["spec"], **predictor, "containers": containers}
            yield Template(label(service), service["metadata"], spec, service["metadata"].get("namespace"))

    def selected(self, labels: Mapping[str, str]) -> list[Template]:
        """The pods that have these labels."""
        return self.taken({"matchLabels": labels})

    def taken(self, selector: Mapping[str, Any]) -> list[Template]:
        """The pods that a label selector takes."""
        return [one for one in self.templates() if takes(selector, one.labels)]

    def taken_by(self, one: Manifest, selector: Mapping[str, Any]) -> list[Template]:
        """The pods of an object's own namespace that its selector takes."""
        own = one["metadata"].get("namespace")
        return [template for template in self.taken(selector) if template.namespace == own]


def _overlaid(container: Manifest, model: Manifest) -> Manifest:
    """A runtime's container with what an InferenceService says of it: arguments come after the runtime's."""
    own = {key: value for key, value in model.items() if key in _OF_A_CONTAINER}
    named = {one["name"]: one for one in (*container.get("env", []), *own.get("env", []))}
    arguments = [*container.get("args", []), *own.get("args", [])]
    return {**container, **own} | {"args": arguments, "env": list(named.values())}


def takes(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes a pod with these labels; an empty one takes every pod."""
    wanted: dict[str, str] = selector.get("matchLabels") or {}
    return wanted.items() <= labels.items() and all(
        _meets(one, labels) for one in selector.get("matchExpressions") or []
    )


def _meets(requirement: Manifest, labels: Mapping[str, str]) -> bool:
    key, values = requirement["key"], requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def label(one: Manifest) -> str:
    """An object as messages name it."""
    return f"{one['kind']} {one['metadata']['name']}"


def image_name(container: Manifest) -> str:
    """The image's last part without its tag: `registry:5000/team/inferry-server:1` is `inferry-server`."""
    image: str = container.get("image", "")
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0]


def parse(text: str) -> Bundle:
    """The objects of YAML documents."""
    return Bundle([document for document in yaml.load_all(text, Loader=_LOADER) if document])


def render(folder: Path, *flags: str) -> Bundle:
    """What `kubectl apply -k` would apply.

    Args:
        folder: with a kustomization.
        flags: more of `kubectl kustomize`.

    Raises:
        ValueError: with what kubectl says.
    """
    made_of = digest(folder)
    if made_of is None:
        return parse(_rendered(folder, flags))
    if (made_of, flags) not in _KEPT:
        _KEPT[made_of, flags] = _rendered(folder, flags)
    return parse(_KEPT[made_of, flags])


_KEPT: dict[tuple[str, tuple[str, ...]], str] = {}  # what was rendered, by what it is made of


def _rendered(folder: Path, flags: tuple[str, ...]) -> str:
    done = subprocess.run(
        [KUBECTL, "kustomize", str(folder), *flags], capture_output=True, text=True, check=False,
        env={**os.environ, **SHORT_LIVED},
    )  # fmt: skip
    if done.returncode != 0:
        raise ValueError(f"{folder} does not render: {done.stderr.strip()}")
    return done.stdout


def render_with(folder: Path, components: Sequence[str], *, resources: Sequence[str] = ("base",)) -> Bundle:
    """The base with components, as an overlay would have them.

    Args:
        folder: for a copy of the manifests, made where there is none yet.
        components: names, in their order.
        resources: what they are added to, by its path in the manifests.
    """
    return render(write_overlay(folder, components, resources=resources))


def write_overlay(
    folder: Path, components: Sequence[str], *, resources: Sequence[str] = ("base",), more: str = ""
) -> Path:
    """An overlay in a copy of the manifests.

    Args:
        folder: for the copy, made where there is none yet.
        components: names, in their order.
        resources: what they are added to, by its path in the manifests.
        more: of the kustomization, as YAML.

    Returns:
        Its folder, `overlays/with-...` in the copy.
    """
    copy = folder / "k8s"
    if not copy.exists():
        shutil.copytree(K8S, copy)
    beside = "" if tuple(resources) == ("base",) else "-".join(one.replace("/", "-") for one in resources) + "-"
    overlay = copy / "overlays" / (f"with-{beside}" + "-".join(components))
    overlay.mkdir(exist_ok=True)
    own = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"../../{one}" for one in resources],
        "components": [f"../../components/{one}" for one in components],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(own, sort_keys=False) + more)
    return overlay
