"""Where the chart's values stand in the objects."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from chart.nodes import ABSENT, Choice, Expr, Node, Splice, Yaml, names
from chart.values import USUAL_POLICY
from manifests.rules_resources import AT_REST_MIB

_PREFIX = '{{ include "inferry.fullname" $ }}'
_NAMES = {"name", "claimName", "secretName", "serviceAccountName", "priorityClassName", "commonName", "hostname"}
_IMAGE = re.compile(r"(inferry-[a-z-]+):[\w.]+")
_NAMESPACED = (
    ('namespace="inferry"', 'namespace="{{ $.Release.Namespace }}"'),
    ('pod=~"inferry-server-', f'pod=~"{_PREFIX}-server-'),
)
_POD = "spec/template/spec"
_SERVER = f"{_POD}/containers/server"
_AUTHORITY = "spec/validation/caCertificateRefs/inferry-server-tls"
_NO_ISSUER = "and $.Values.tls.enabled (not $.Values.tls.issuer) (not $.Values.tls.secretName)"


def place(objects: dict[str, Node]) -> dict[str, Node]:
    """The objects with every value in its place.

    Args:
        objects: woven ones, by `Kind/name`; changed in place.

    Raises:
        KeyError: a place that is not there any more.
    """
    _place_pods(objects["Deployment/inferry-server"])
    _place_models(objects)
    _place_tls(objects)
    _place_tokens(objects)
    _place_others(objects)
    return {name: _named(node, key="") for name, node in objects.items()}


def manifest_facts(objects: dict[str, Node]) -> Node:
    """What the rules must know of the manifests: a mapping, with the components' conditions in it.

    Args:
        objects: woven ones, without values.
    """
    server = _found(objects["Deployment/inferry-server"], _SERVER)
    startup, readiness = server["startupProbe"], server["readinessProbe"]
    return {
        "memory": server["resources"]["limits"]["memory"],
        "policy": USUAL_POLICY,
        "atRestBytes": AT_REST_MIB << 20,
        "startSeconds": _mapped(startup["failureThreshold"], lambda times: times * startup["periodSeconds"]),
        "readinessSeconds": readiness["failureThreshold"] * readiness["periodSeconds"],
    }


def _found(node: Node, path: str) -> Node:
    found: list[Node] = []

    def look(one: Node) -> Node:
        found.append(one)
        return one

    edit(node, path, look)
    (only,) = found
    return only


def reserved(objects: dict[str, Node]) -> dict[str, tuple[str, list[str]]]:
    """The names that the values cannot add, as they are there: by value, with the key that has the name.

    Args:
        objects: with every value in its place.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    for node in objects.values():
        for value, key, taken in _beside_splices(node):
            known = found.get(value, (key, []))[1]
            found[value] = key, sorted({*known, *taken})
    return {value: (key, taken) for value, (key, taken) in found.items() if taken}


def _beside_splices(node: Node) -> Iterator[tuple[str, str, list[str]]]:
    match node:
        case Choice():
            for tree in _branches(node):
                yield from _beside_splices(tree)
        case dict():
            for key, value in node.items():
                if isinstance(key, Splice):
                    yield _value_of(key), "", [one for one in node if isinstance(one, str)]
                else:
                    yield from _beside_splices(value)
        case list():
            elements = [tree for one in node for tree in _branches(one) if isinstance(tree, dict)]
            key = "mountPath" if any("mountPath" in one for one in elements) else "name"
            for one in node:
                if isinstance(one, Splice):
                    yield _value_of(one), key, [tree[key] for tree in elements if isinstance(tree.get(key), str)]
                else:
                    yield from _beside_splices(one)


def _value_of(splice: Splice) -> str:
    return splice.value.removeprefix("$.Values.")


def edit(node: Node, path: str, change: Callable[[Node], Node]) -> None:
    """Change what stands at a path, in every branch that has it.

    Raises:
        KeyError: no branch has it.
    """
    head, _, rest = path.partition("/")
    found = 0
    for tree in _branches(node):
        if isinstance(tree, list):
            places: Any = [place for place, one in enumerate(tree) if head in _element_names(one)]
        else:
            places = [head] if isinstance(tree, dict) and (head in tree or not rest) else []
        for place in places:
            found += 1
            if rest:
                edit(tree[place], rest, change)
            else:
                tree[place] = change(tree.get(place, ABSENT) if isinstance(tree, dict) else tree[place])
    if not found:
        raise KeyError(path)


def _branches(node: Node) -> list[Node]:
    if isinstance(node, Choice):
        return [tree for one in (*(chosen for _, chosen in node.options), node.otherwise) for tree in _branches(one)]
    return [node]


def _element_names(node: Node) -> list[str]:
    return [name for tree in _branches(node) if isinstance(tree, dict) for name in names([tree])]


def instead(value: str, *, yaml: bool = False, test: str = "") -> Callable[[Node], Node]:
    """The value where it is set, or else what stands there."""
    expression = f"$.Values.{value}"
    own = Yaml(expression) if yaml else Expr(f"{{{{ {expression} | quote }}}}")

    def change(node: Node) -> Node:
        rest = (node.options, node.otherwise) if isinstance(node, Choice) else ((), node)
        return Choice(((test or expression, own), *rest[0]), rest[1])

    return change


def always(expression: str) -> Callable[[Node], Node]:
    """The expression, which has the same default."""
    return lambda node: _mapped(node, lambda leaf: leaf if leaf is ABSENT else Expr(f"{{{{ {expression} }}}}"))


def more(value: str) -> Callable[[Node], Node]:
    """What stands there, and the elements of the value."""
    own = Splice(f"$.Values.{value}")

    def change(node: Node) -> Node:
        if node is ABSENT:
            return Choice(((f"$.Values.{value}", Yaml(f"$.Values.{value}")),))
        if isinstance(node, Choice) and node.otherwise is ABSENT:
            options = tuple((test, [*chosen, own]) for test, chosen in node.options)
            return Choice((*options, (f"$.Values.{value}", Yaml(f"$.Values.{value}"))))
        return _mapped(node, lambda tree: [*tree, own] if isinstance(tree, list) else {**tree, own: None})

    return change


def _mapped(node: Node, change: Callable[[Node], Node]) -> Node:
    if isinstance(node, Choice):
        return Choice(
            tuple((test, _mapped(one, change)) for test, one in node.options), _mapped(node.otherwise, change)
        )
    return change(node)


def _place_pods(deployment: Node) -> None:
    long_start = "$.Values.startSeconds"
    for path, change in {
        "spec/replicas": always("$.Values.replicas"),
        "spec/strategy": instead("strategy", yaml=True),
        "spec/progressDeadlineSeconds": _first(long_start, "{{ add $.Values.startSeconds 300 }}"),
        "spec/template/metadata/labels": more("podLabels"),
        "spec/template/metadata/annotations": more("podAnnotations"),
        f"{_POD}/terminationGracePeriodSeconds": always('include "inferry.graceSeconds" $'),
        f"{_POD}/topologySpreadConstraints": _spread,
        f"{_POD}/priorityClassName": instead("priority.className"),
        f"{_POD}/tolerations": more("tolerations"),
        f"{_POD}/nodeSelector": more("nodeSelector"),
        f"{_POD}/affinity": more("affinity"),
        f"{_POD}/imagePullSecrets": more("imagePullSecrets"),
        f"{_POD}/runtimeClassName": instead("runtimeClassName"),
        f"{_POD}/volumes": more("volumes"),
        f"{_SERVER}/volumeMounts": more("volumeMounts"),
        f"{_SERVER}/env": more("env"),
        f"{_SERVER}/resources": instead("resources", yaml=True),
        f"{_SERVER}/imagePullPolicy": instead("image.pullPolicy"),
        f"{_SERVER}/startupProbe/failureThreshold": _first(long_start, "{{ div (add $.Values.startSeconds 1) 2 }}"),
        f"{_SERVER}/livenessProbe/failureThreshold": always('include "inferry.livenessFailures" $'),
    }.items():
        edit(deployment, path, change)
    checksum = Expr('{{ include "inferry.settings" $ | sha256sum }}')
    edit(deployment, "spec/template/metadata/annotations", lambda node: {**node, "checksum/settings": checksum})


def _spread(node: Node) -> Node:
    """The values' own, or else what stands there."""
    own = Yaml('(include "inferry.spread" $ | fromYamlArray)')
    return Choice((("$.Values.topologySpreadConstraints", own),), node)


def _first(test: str, text: str) -> Callable[[Node], Node]:
    """The text where the test holds, or else what stands there."""

    def change(node: Node) -> Node:
        rest = (node.options, node.otherwise) if isinstance(node, Choice) else ((), node)
        return Choice(((test, Expr(text)), *rest[0]), rest[1])

    return change


def _place_models(objects: dict[str, Node]) -> None:
    deployment, claim = objects["Deployment/inferry-server"], "PersistentVolumeClaim/inferry-models"
    edit(deployment, f"{_POD}/volumes/models/persistentVolumeClaim/claimName", instead("models.claim.name"))
    edit(deployment, f"{_POD}/volumes/models/image/reference", always("$.Values.models.image.reference | quote"))
    edit(deployment, f"{_POD}/volumes/models/image/pullPolicy", always("$.Values.models.image.pullPolicy | quote"))
    edit(deployment, f"{_POD}/volumes/models/emptyDir/sizeLimit", always("$.Values.models.bucket.size | quote"))
    for container in ("initContainers/models", "containers/sync"):
        edit(deployment, f"{_POD}/{container}/args", _url)
        edit(deployment, f"{_POD}/{container}/envFrom", _bucket_secret)
    tree = objects[claim]
    edit(tree, "spec/accessModes", instead("models.claim.accessModes", yaml=True))
    edit(tree, "spec/storageClassName", instead("models.claim.storageClassName"))
    edit(tree, "spec/resources/requests/storage", always("$.Values.models.claim.size | quote"))
    edit(tree, "metadata/annotations", lambda _: {"helm.sh/resource-policy": "keep"})
    objects[claim] = Choice((("$.Values.models.claim.name", ABSENT), *tree.options), tree.otherwise)


def _url(arguments: Node) -> Node:
    return [Expr("{{ $.Values.models.bucket.url | quote }}") if "://" in one else one for one in arguments]


def _bucket_secret(sources: Node) -> Node:
    (source,) = sources
    name = Expr(
        '"{{ $.Values.models.bucket.secretName | default (printf "%s-bucket" (include "inferry.fullname" $)) }}"'
    )
    return [{"secretRef": {**source["secretRef"], "name": name}}]


def _place_tls(objects: dict[str, Node]) -> None:
    deployment = objects["Deployment/inferry-server"]
    edit(deployment, f"{_POD}/volumes/tls/secret/secretName", instead("tls.secretName"))
    certificate = objects["Certificate/inferry-server"]
    edit(certificate, "spec/dnsNames", more("tls.dnsNames"))
    edit(certificate, "spec/issuerRef", instead("tls.issuer", yaml=True))
    own = '$.Values.tls.secretName | default (printf "%s-server-tls" (include "inferry.fullname" $)) | quote'
    edit(objects["BackendTLSPolicy/inferry-server"], f"{_AUTHORITY}/name", always(own))
    for name in [name for name in objects if name.startswith(("Certificate/", "Issuer/"))]:
        tree = objects[name]
        ((_, made),) = tree.options
        test = "and $.Values.tls.enabled (not $.Values.tls.secretName)" if "/inferry-server" in name else _NO_ISSUER
        objects[name] = Choice(((test, made),))


def _place_tokens(objects: dict[str, Node]) -> None:
    deployment, secret = objects["Deployment/inferry-server"], "Secret/inferry-access"
    edit(deployment, f"{_POD}/volumes/access/secret/secretName", instead("tokens.secretName"))
    edit(objects[secret], "data/policy.toml", always("$.Values.tokens.policy | b64enc | quote"))
    ((test, made),) = objects[secret].options
    objects[secret] = Choice(((f"and {test} (not $.Values.tokens.secretName)", made),))


def _place_others(objects: dict[str, Node]) -> None:
    for name, path, change in (
        ("ServiceAccount/inferry-server", "metadata/annotations", more("serviceAccount.annotations")),
        (
            "PodDisruptionBudget/inferry-server",
            "spec/maxUnavailable",
            always("$.Values.disruptionBudget.maxUnavailable"),
        ),
        ("NetworkPolicy/inferry-server", "spec/egress", instead("networkPolicy.egress", yaml=True)),
        ("NetworkPolicy/inferry-server", "spec/ingress", _ingress),
        ("NetworkPolicy/inferry-models-bucket", "spec/egress", instead("models.bucket.egress", yaml=True)),
        ("PodMonitor/inferry-server", "metadata/labels", more("monitoring.labels")),
        ("PrometheusRule/inferry-server", "metadata/labels", more("monitoring.labels")),
        ("HorizontalPodAutoscaler/inferry-server", "spec/minReplicas", always("$.Values.autoscaling.minReplicas")),
        ("HorizontalPodAutoscaler/inferry-server", "spec/maxReplicas", always("$.Values.autoscaling.maxReplicas")),
        ("HorizontalPodAutoscaler/inferry-server", "spec/metrics", _cpu),
        ("ScaledObject/inferry-server", "spec/minReplicaCount", always("$.Values.autoscaling.minReplicas")),
        ("ScaledObject/inferry-server", "spec/maxReplicaCount", always("$.Values.autoscaling.maxReplicas")),
        ("ScaledObject/inferry-server", "spec/triggers", _prometheus),
        ("Gateway/inferry", "spec/gatewayClassName", always("$.Values.gateway.className | quote")),
        ("GRPCRoute/inferry", "spec/hostnames", more("gateway.hostnames")),
        ("GRPCRoute/inferry", "spec/rules", _canary),
    ):
        edit(objects[name], path, change)


def _ingress(rules: Node) -> Node:
    clients, prometheus = rules
    (peer,) = prometheus["from"]
    labels = dict.fromkeys(
        peer["namespaceSelector"]["matchLabels"], Expr("{{ $.Values.networkPolicy.monitoringNamespace | quote }}")
    )
    return [
        {**clients, "from": instead("networkPolicy.clients", yaml=True)(clients["from"])},
        {**prometheus, "from": [{"namespaceSelector": {"matchLabels": labels}}]},
    ]


def _cpu(metrics: Node) -> Node:
    (metric,) = metrics
    source = metric["containerResource"]
    target = {**source["target"], "averageUtilization": Expr("{{ $.Values.autoscaling.cpuPercent }}")}
    return [{**metric, "containerResource": {**source, "target": target}}]


def _prometheus(triggers: Node) -> Node:
    address = Expr("{{ $.Values.autoscaling.prometheus | quote }}")
    return [{**one, "metadata": {**one["metadata"], "serverAddress": address}} for one in triggers]


def _canary(rules: Node) -> Node:
    (rule,) = rules
    (stable,) = rule["backendRefs"]
    test, weight = "$.Values.gateway.canary.service", "$.Values.gateway.canary.weight"
    other = {
        "name": Expr(f"{{{{ {test} | quote }}}}"), "port": stable["port"], "weight": Expr(f"{{{{ {weight} }}}}"),
    }  # fmt: skip
    kept = _first(test, f"{{{{ sub 100 {weight} }}}}")(stable["weight"])
    return [{**rule, "backendRefs": [{**stable, "weight": kept}, Choice(((test, other),))]}]


def _named(node: Node, *, key: str) -> Node:
    """Names that begin with the release's, labels that tell it, and images of the chart's registry."""
    match node:
        case Choice():
            options = tuple((test, _named(one, key=key)) for test, one in node.options)
            return Choice(options, _named(node.otherwise, key=key))
        case dict():
            tree = {name: _named(value, key=name if isinstance(name, str) else "") for name, value in node.items()}
            return _labelled(tree, metadata=key == "labels") if "app.kubernetes.io/name" in tree else tree
        case list():
            return [_named(value, key="dnsNames" if key == "dnsNames" else "") for value in node]
        case str():
            return _text(node, key)
        case _:
            return node


def _text(text: str, key: str) -> Node:
    if key == "image" and (match := _IMAGE.fullmatch(text)):
        return Expr(f'{{{{ include "inferry.image" (list $ "{match[1]}") | quote }}}}')
    if key in _NAMES and re.match(r"inferry(-|$)", text):
        return Expr(f'"{_PREFIX}{text.removeprefix("inferry")}"')
    if key == "dnsNames" and (match := re.fullmatch(r"inferry(-server(?:-vip)?(?:-canary)?)(\.inferry)?(.*)", text)):
        return Expr(f'"{_PREFIX}{match[1]}{".{{ $.Release.Namespace }}" if match[2] else ""}{match[3]}"')
    if key == "query":
        for old, new in _NAMESPACED:
            text = text.replace(old, new)
        return Expr("'" + text.replace("'", "''") + "'")
    return text


def _labelled(labels: dict[Any, Node], *, metadata: bool) -> dict[Any, Node]:
    own: dict[Any, Node] = {**labels, "app.kubernetes.io/instance": Expr("{{ $.Release.Name | quote }}")}
    if metadata:
        own |= {
            "app.kubernetes.io/part-of": "inferry",
            "app.kubernetes.io/version": Expr("{{ $.Chart.AppVersion | quote }}"),
            "app.kubernetes.io/managed-by": Expr("{{ $.Release.Service }}"),
        }
    return own
