"""Who calls servers with TLS or tokens is ready for it: jobs beside them, and monitors; who is not is named."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferry_client.connecting.security import Security, security_from_environment
from inferry_server.security.policy import parse_policy
from inferry_server.security.roles import Role
from manifests.bundle import ROOT, Bundle, Manifest, render, render_with, write_overlay
from manifests.check import faults
from manifests.facts import ServerFacts
from manifests.planting import POLICY, data, one, policy
from manifests.schemas import VERSIONS

README = (ROOT / "deploy" / "README.md").read_text()
DIGEST = "0123456789abcdef" * 4
JOBS = ("jobs/classify", "jobs/load")
SHOWN = "shown"
SECURE = ("tls", "tokens")
OF_THE_JOBS = "inferry-jobs-token"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("callers")


def wrong(bundle: Bundle, facts: ServerFacts) -> list[str]:
    """All but the Secret with the jobs' token, which is the cluster's."""
    return [one for one in faults(bundle, facts, versions=VERSIONS[-1:]) if f"no Secret {OF_THE_JOBS}," not in one]


def callers(bundle: Bundle) -> dict[str, Manifest]:
    return {
        f"{template.owner}/{container['name']}": container
        for template in bundle.templates()
        if not template.servers
        for container in template.containers
        if "merge" not in container.get("args", [])
    }


def variables_of(container: Manifest) -> set[str]:
    return {one["name"] for one in container.get("env", [])}


def together(folder: Path, components: tuple[str, ...], jobs: tuple[str, ...] = ()) -> Bundle:
    """Servers with components, and jobs of an overlay of their own, with others."""
    beside = render_with(folder, jobs, resources=JOBS)
    return Bundle([*servers(folder, components).objects, *beside.objects])


def servers(folder: Path, components: tuple[str, ...], resources: tuple[str, ...] = ("base",)) -> Bundle:
    more = POLICY if "tokens" in components else ""
    return render(write_overlay(folder, components, resources=resources, more=more))


@pytest.mark.parametrize("components", [("tls",), ("tokens",), SECURE], ids="+".join)
def test_jobs_of_the_same_overlay_are_made_ready_by_the_servers_components(
    components: tuple[str, ...], folder: Path, facts: ServerFacts
) -> None:
    bundle = servers(folder, (*components, "namespace"), ("base", *JOBS))
    assert wrong(bundle, facts) == []
    assert all("INFERRY_TOKEN" in variables_of(one) for one in callers(bundle).values()) == ("tokens" in components)


@pytest.mark.parametrize("secured", [("tls",), ("tokens",), SECURE], ids="+".join)
def test_jobs_of_another_overlay_are_made_ready_by_components_of_theirs(
    secured: tuple[str, ...], folder: Path, facts: ServerFacts
) -> None:
    assert wrong(together(folder, secured, tuple(f"jobs-{one}" for one in secured)), facts) == []


@pytest.mark.parametrize(
    ("secured", "jobs", "expected"),
    [
        (("tls",), (), "speak TLS, and it calls them in the clear (component `jobs-tls`)"),
        (("tokens",), (), "ask for tokens, and it shows none (component `jobs-tokens`)"),
        (SECURE, ("jobs-tls",), "ask for tokens, and it shows none (component `jobs-tokens`)"),
        ((), ("jobs-tls",), "it speaks TLS, and the servers of Deployment inferry-server do not"),
    ],
)
def test_jobs_that_would_be_refused_are_named(
    secured: tuple[str, ...], jobs: tuple[str, ...], expected: str, folder: Path, facts: ServerFacts
) -> None:
    found = [fault for fault in wrong(together(folder, secured, jobs), facts) if fault.endswith(expected)]
    assert {fault.partition(",")[0] for fault in found} == {"Job inferry-classify", "Job inferry-load-workers"}


def first(bundle: Bundle) -> Manifest:
    return callers(bundle)["Job inferry-classify/classify"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["env"][0].update(value="/elsewhere/ca.crt"), "in /elsewhere/ca.crt, and nothing is mounted there"),
        (
            lambda c: c["env"][0].update(name="INFERRY_TLS", value="1"),
            "is the namespace's own, and it does not name it",
        ),
        (lambda c: c.update(env=[]), "in the clear"),
    ],
)
def test_an_authority_that_is_not_there_is_named(
    change: Callable[[Any], object], expected: str, folder: Path, facts: ServerFacts
) -> None:
    bundle = together(folder, ("tls",), ("jobs-tls",))
    change(first(bundle))
    assert any(expected in fault for fault in wrong(bundle, facts))


def test_a_job_may_say_it_by_flags(folder: Path, facts: ServerFacts) -> None:
    bundle = together(folder, SECURE, ("jobs-tls", "jobs-tokens"))
    container = first(bundle)
    container["env"] = []
    container["args"] += ["--ca=/tls/ca.crt", "--token-file", "/token/token"]
    container["volumeMounts"].append({"name": "tmp", "mountPath": "/token"})
    assert wrong(bundle, facts) == []


def test_who_calls_servers_of_another_namespace_is_not_held_against_those_of_this_one(
    folder: Path, facts: ServerFacts
) -> None:
    bundle = servers(folder, ("tls", "namespace"), ("base", "jobs/classify"))
    container = first(bundle)
    container["env"] = []
    for host, named in (("inferry-server.other", False), ("inferry-server.inferry.svc.cluster.local", True)):
        container["args"] = [f"--server=dns:///{host}:8001" if "--server" in one else one for one in container["args"]]
        assert any("in the clear" in fault for fault in wrong(bundle, facts)) == named


def test_who_needs_no_token_needs_none(folder: Path, facts: ServerFacts) -> None:
    bundle = together(folder, ("tokens",))
    policy('anonymous = ["infer", "read"]')(bundle)
    assert wrong(bundle, facts) == []
    policy('anonymous = ["infer"]')(bundle)
    assert any("it shows none" in fault for fault in wrong(bundle, facts))


def test_the_clients_read_what_the_components_give_them(folder: Path) -> None:
    bundle = render_with(folder, ("jobs-tls", "jobs-tokens"), resources=JOBS)
    for name, container in callers(bundle).items():
        variables = {one["name"]: one.get("value", SHOWN) for one in container["env"]}
        security = security_from_environment(Security(), variables)
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert security.encrypted, name
        assert security.token == SHOWN, name
        assert str(Path(str(security.ca)).parent) in mounts, name


def test_jobs_get_the_authority_and_not_the_servers_key(folder: Path) -> None:
    bundle = render_with(folder, ("jobs-tls",), resources=JOBS)
    volumes = [
        volume for template in bundle.templates() for volume in template.spec["volumes"] if volume["name"] == "tls"
    ]
    assert len(volumes) == 3
    assert all([item["key"] for item in volume["secret"]["items"]] == ["ca.crt"] for volume in volumes)


def test_a_merge_and_the_trainers_jobs_call_no_server(folder: Path, facts: ServerFacts) -> None:
    bundle = servers(folder, (*SECURE, "namespace"), ("base", *JOBS, "jobs/retrain"))
    assert wrong(bundle, facts) == []
    for name in ("Job inferry-merge", "CronJob inferry-retrain"):
        (template,) = [one for one in bundle.templates() if one.owner == name]
        assert not {"INFERRY_CA", "INFERRY_TOKEN"} & {
            variable["name"] for container in template.containers for variable in container.get("env", [])
        }


def of_the_readme() -> list[str]:
    """Both parts of an overlay that tokens need: the Secret of the policy, and the token that a monitor shows."""
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    secret = next(block.partition("secretGenerator:")[2] for block in blocks if "secretGenerator:" in block)
    (patches,) = [block for block in blocks if block.startswith("patches:") and "PodMonitor" in block]
    return [f"secretGenerator:{secret}", patches]


def test_an_overlays_own_policy_is_read_and_its_monitor_shows_a_token(folder: Path, facts: ServerFacts) -> None:
    made = write_overlay(folder, ("tls", "tokens", "monitoring", "namespace"), more="\n".join(of_the_readme()))
    (made / "policy.toml").write_text(
        f'metrics = "read"\n[callers.prometheus]\nroles = ["read"]\ntokens_sha256 = ["{DIGEST}"]\n'
    )
    bundle = render(made)
    assert [fault for fault in faults(bundle, facts, versions=VERSIONS[-1:]) if "prometheus-token" not in fault] == []
    assert one(bundle, "Secret")["metadata"]["name"] == "inferry-access"
    assert data(bundle)["INFERRY_ACCESS_POLICY"] == "/access/policy.toml"


def test_roles_of_the_jobs_token_are_those_that_the_readme_names() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    known = parse_policy(example.encode())
    roles = {token.caller.name: token.caller.roles for token in known.tokens.values()}
    assert roles["jobs"] == {Role.INFER, Role.READ}
