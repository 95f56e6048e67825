"""What a running server has, asked once; and `--no-skips`, for runs in which a skipped test is a failed one."""

import shutil
from collections.abc import Generator
from typing import Any

import pytest

from manifests.bundle import K8S, Bundle, render
from manifests.facts import ServerFacts, server_facts
from manifests.planting import POLICY

COMPONENTS = (
    "priority", "tls", "tokens", "networkpolicy", "monitoring", "keda", "gateway", "gateway-tls", "namespace",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped has failed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.skipped and item.config.getoption("--no-skips", default=False):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def facts() -> ServerFacts:
    """Of a server that answers every path that a manifest may ask for."""
    return server_facts(["/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", "/health", "/healthz"])


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The base with most components, in which there is nothing wrong."""
    folder = tmp_path_factory.mktemp("deploy") / "k8s"
    shutil.copytree(K8S, folder)
    (folder / "overlays" / "all").mkdir()
    (folder / "overlays" / "all" / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../base]\ncomponents:\n"
        + "".join(f"  - ../../components/{one}\n" for one in COMPONENTS)
        + POLICY
    )
    return render(folder / "overlays" / "all")
