"""What holds for every test."""

from typing import cast

import pytest
from hypothesis import HealthCheck, settings

from inferry_server.settings import TRANSPORTS

# Speed is measured by the benchmark, never by a test: on a busy machine an example may take its time.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Everything that the protocol promises holds over every transport."""
    return cast("str", request.param)
