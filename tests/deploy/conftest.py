"""What a running server has, asked once; and `--no-skips`, for runs in which a skipped test is a failed one."""

from collections.abc import Generator
from typing import Any

import pytest

from manifests.facts import ServerFacts, server_facts


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
