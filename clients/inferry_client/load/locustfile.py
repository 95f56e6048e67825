"""What Locust runs for `inferry load`: users that send prepared requests as fast as they are answered.

Settings come in the environment (see `command`); what was measured goes to a file.
"""

import os
import random
from pathlib import Path
from typing import Any

import locust.stats
from gevent import get_hub
from locust import constant, events, task

from inferry_client.load.payloads import read_payloads
from inferry_client.load.summary import LoadSummary, bucket_ms, write_summary
from inferry_client.load.user import GrpcUser

_ERRORS_KEPT = 5

locust.stats.bucket_response_time = bucket_ms
_PAYLOADS = read_payloads(Path(os.environ["INFERRY_LOAD_FOLDER"]))


class ModelUser(GrpcUser):
    """Sends one request after the other, each chosen at random from the prepared ones."""

    wait_time = constant(0)
    timeout_s = float(os.environ["INFERRY_LOAD_TIMEOUT_S"])

    @task  # type: ignore[untyped-decorator]  # Locust is not followed: it may be absent
    def ask(self) -> None:
        """One request."""
        payload = random.choice(_PAYLOADS)  # noqa: S311
        self.send(os.environ["INFERRY_LOAD_NAME"], os.environ["INFERRY_LOAD_PATH"], payload)


@events.init.add_listener  # type: ignore[untyped-decorator]
def set_clock(**_: Any) -> None:
    """Bring gevent's clock up to date: it stood still through the imports, which shortened the test by as much."""
    get_hub().loop.update_now()


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def keep_summary(environment: Any, **_: Any) -> None:
    """Write what was measured, once the last answer has come."""
    total = environment.stats.total
    errors = sorted(environment.stats.errors.values(), key=lambda error: -error.occurrences)
    summary = LoadSummary(
        requests=total.num_requests,
        failures=total.num_failures,
        requests_per_second=float(total.total_rps),
        p50_ms=float(total.get_response_time_percentile(0.50)),
        p99_ms=float(total.get_response_time_percentile(0.99)),
        errors=tuple(f"{error.occurrences} x {error.error}" for error in errors[:_ERRORS_KEPT]),
    )
    Path(os.environ["INFERRY_LOAD_SUMMARY"]).write_text(write_summary(summary), encoding="utf-8")
