"""What Locust runs for `inferry load`, and alone: `locust --locustfile FILE --host HOST:PORT`.

`inferry load` prepares the requests and says in the environment where they are (see `command`);
what was measured goes to a file there. Alone, the users prepare random requests of the one model
that is ready, or of $INFERRY_LOAD_MODEL, and Locust reports in its own ways.
"""

import os
from pathlib import Path
from typing import Any

import locust.stats
from locust import events

from inferry_client.load.payloads import read_payloads
from inferry_client.load.summary import LoadSummary, bucket_ms, summarize, write_summary
from inferry_client.load.user import ModelUser

_FOLDER = os.environ.get("INFERRY_LOAD_FOLDER")
_ERRORS_KEPT = 5

locust.stats.bucket_response_time = bucket_ms


class PreparedUser(ModelUser):
    """Sends what `inferry load` prepared, or what it finds fitting."""

    timeout_s = float(os.environ.get("INFERRY_LOAD_TIMEOUT_S", "10"))
    model = os.environ.get("INFERRY_LOAD_MODEL", "")
    payloads = read_payloads(Path(_FOLDER)) if _FOLDER else None


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def keep_summary(environment: Any, **_: Any) -> None:
    """Write what was measured, once the last answer has come."""
    if _FOLDER:
        (Path(_FOLDER) / "summary.json").write_text(write_summary(_summarize(environment.stats)), encoding="utf-8")


def _summarize(stats: Any) -> LoadSummary:
    errors = sorted(stats.errors.values(), key=lambda error: -error.occurrences)
    return summarize(
        {name: (entry.num_requests, dict(entry.response_times)) for (name, _), entry in stats.entries.items()},
        seconds=max((stats.last_request_timestamp or 0) - stats.start_time, 0),
        errors=tuple(f"{error.occurrences} x {error.error}" for error in errors[:_ERRORS_KEPT]),
    )
