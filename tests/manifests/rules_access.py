"""Rules of who calls the servers: jobs and monitors speak TLS where they do, and show a token where one is asked."""

import base64
import binascii
import re
from collections.abc import Iterator
from functools import partial

from inferry_server.errors import StartError
from inferry_server.security.policy import Policy, parse_policy
from inferry_server.security.roles import Role
from manifests.bundle import Bundle, Manifest, Template, image_name, label, takes
from manifests.needs import monitor_token
from manifests.rules_gateway import certificate_of
from manifests.rules_server import Served, servers

_SERVER = re.compile(r"--(?:server|host)[= ](?:dns:///)?([^:/ ]+):\d+")
_MASTER = re.compile(r"--master-host[= ](\S+)")
_LOAD = "inferry_client.load"
_OFFLINE = ("completion", "sync", "merge")  # of `inferry`: these call no server


def access_faults(bundle: Bundle) -> Iterator[str]:
    """Policies that no server would read, and callers that would be refused."""
    for server in servers(bundle):
        yield from (f"{server.template.owner}: {fault}" for fault in _policy_faults(bundle, server))
    for template in bundle.templates():
        for container in template.containers:
            for served in _called(bundle, template, container):
                name = f"{template.owner}, container {container['name']}"
                yield from (f"{name}: {fault}" for fault in _caller_faults(bundle, template, container, served))


def _policy_faults(bundle: Bundle, server: Served) -> Iterator[str]:
    try:
        policy = policy_of(bundle, server)
    except StartError as error:
        yield str(error)
        return
    if policy is None or policy.metrics is None:
        return
    role = policy.metrics.value
    for monitor in bundle.every("PodMonitor"):
        if takes(monitor["spec"]["selector"], server.template.labels):
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                if monitor_token(endpoint) is None:
                    yield f"metrics ask for the role {role}, and {label(monitor)} shows no token (authorization)"
    if server.template.metadata.get("annotations", {}).get("prometheus.io/scrape") == "true":
        yield f"metrics ask for the role {role}, and whoever follows the annotation prometheus.io/scrape has no token"


def policy_of(bundle: Bundle, server: Served) -> Policy | None:
    """The access policy of a server, as far as its Secret is here; None: none is known.

    Raises:
        StartError: there is one, and the server would refuse it.
    """
    path = server.settings.access_policy
    if path is None:
        return None
    mounts = [one for one in server.container.get("volumeMounts", []) if str(path).startswith(one["mountPath"] + "/")]
    for mount in mounts:
        volumes = {one["name"]: one for one in server.template.spec.get("volumes", [])}
        source = volumes.get(mount["name"], {}).get("secret", {})
        secret = bundle.find("Secret", source.get("secretName", ""))
        if secret is None:
            continue
        inside = str(path).removeprefix(mount["mountPath"] + "/")
        key = next((one["key"] for one in source.get("items", []) if one["path"] == inside), inside)
        return parse_policy(_content(secret, key))
    return None


def _content(secret: Manifest, key: str) -> bytes:
    plain, encoded = secret.get("stringData") or {}, secret.get("data") or {}
    if key in plain:
        return str(plain[key]).encode()
    if key not in encoded:
        raise StartError(f"{label(secret)} has no {key}; it has {sorted({*plain, *encoded})}")
    try:
        return base64.b64decode("".join(str(encoded[key]).split()), validate=True)  # kustomize wraps its lines
    except (binascii.Error, ValueError):
        raise StartError(f"{label(secret)}: {key} is not base64") from None


def _called(bundle: Bundle, template: Template, container: Manifest) -> list[Served]:
    """The servers that a container of Inferry's clients calls."""
    command = [str(one) for one in (*container.get("command", []), *container.get("args", []))]
    if image_name(container) != "inferry-clients" or not command or set(_OFFLINE) & set(command[:2]):
        return []
    if _LOAD in command and "--master" in command:
        return []  # it counts; its workers call
    text = " ".join(command)
    if (master := _MASTER.search(text)) is not None:  # which tells its workers whom they call
        service = bundle.find("Service", master[1].partition(".")[0])
        behind = bundle.selected(service["spec"]["selector"]) if service is not None else []
        text = " ".join(str(one) for pod in behind for each in pod.containers for one in each.get("args", []))
    own = {one["name"]: one.get("value", "") for one in container.get("env", [])}
    match = _SERVER.search(f"{text} --server={own.get('INFERRY_SERVER', '')}")
    name, _, domain = ("", "", "") if match is None else match[1].partition(".")
    service = bundle.find("Service", name)
    elsewhere = service is not None and domain and domain.partition(".")[0] != service["metadata"].get("namespace")
    return servers(bundle, name) if service is not None and not elsewhere else []


def _caller_faults(bundle: Bundle, template: Template, container: Manifest, served: Served) -> Iterator[str]:
    variables = {one["name"]: one for one in container.get("env", [])}
    has = partial(_says, variables, [str(one) for one in container.get("args", [])])
    settings = served.settings
    encrypted = any(has(one) for one in ("INFERRY_CA", "INFERRY_TLS", "INFERRY_SERVER_NAME", "INFERRY_CERTIFICATE"))
    if settings.tls_certificate is not None and not encrypted:
        yield f"the servers of {served.template.owner} speak TLS, and it calls them in the clear (component `jobs-tls`)"
    if settings.tls_certificate is None and encrypted:
        yield f"it speaks TLS, and the servers of {served.template.owner} do not"
    if settings.tls_client_ca is not None and not has("INFERRY_CERTIFICATE"):
        yield f"the servers of {served.template.owner} ask for client certificates, and it has none"
    if settings.tls_certificate is not None and certificate_of(bundle, served.template) is not None:
        authority = has("INFERRY_CA")
        if encrypted and not authority:
            yield f"the authority of {served.template.owner} is the namespace's own, and it does not name it (--ca)"
        mounts = [one["mountPath"] for one in container.get("volumeMounts", [])]
        if authority and not any(authority.startswith(f"{mount}/") for mount in mounts):
            yield f"it believes the authority in {authority}, and nothing is mounted there"
    yield from _token_faults(bundle, served, shown=bool(has("INFERRY_TOKEN") or has("INFERRY_TOKEN_FILE")))


def _token_faults(bundle: Bundle, served: Served, *, shown: bool) -> Iterator[str]:
    if served.settings.access_policy is None or shown:
        return
    try:
        policy = policy_of(bundle, served)
    except StartError:
        return
    anonymous = frozenset[Role]() if policy is None else policy.anonymous
    if not {Role.INFER, Role.READ} <= anonymous:
        yield f"the servers of {served.template.owner} ask for tokens, and it shows none (component `jobs-tokens`)"


def _says(variables: dict[str, Manifest], arguments: list[str], name: str) -> str:
    """What a variable or the flag of the same meaning has; `given` where it comes from elsewhere; empty: nothing."""
    flag = "--" + name.removeprefix("INFERRY_").lower().replace("_", "-")
    for place, argument in enumerate(arguments):
        if argument == flag:
            return arguments[place + 1] if place + 1 < len(arguments) else "given"
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    variable = variables.get(name, {})
    return variable.get("value", "") or ("given" if "valueFrom" in variable else "")
