"""What Locust runs for `inferry load`, and alone: `locust --locustfile FILE --host HOST:PORT`.

`inferry load` prepares the requests and says in the environment where they are (see `command`);
what was measured goes to a file there. Alone, the users prepare random requests of the one model
that is ready, or of $INFERRY_LOAD_MODEL, and Locust reports in its own ways.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import locust.stats
from locust import events
from locust.runners import MasterRunner

from inferry_client.load.payloads import read_payloads
from inferry_client.load.records import OUTCOMES, make_records
from inferry_client.load.summary import bucket_ms, outcome_of
from inferry_client.load.user import ModelUser

_FOLDER = os.environ.get("INFERRY_LOAD_FOLDER")
locust.stats.bucket_response_time = bucket_ms

_rows: list[tuple[float, float, float, int]] = []
_errors: Counter[str] = Counter()


class PreparedUser(ModelUser):
    """Sends what `inferry load` prepared, or what it finds fitting."""

    timeout_s = float(os.environ.get("INFERRY_LOAD_TIMEOUT_S", "10"))
    model = os.environ.get("INFERRY_LOAD_MODEL", "")
    payloads = read_payloads(Path(_FOLDER)) if _FOLDER else None


@events.request.add_listener  # type: ignore[untyped-decorator]
def keep_record(response_time: float, exception: BaseException | None, context: dict[str, float], **_: Any) -> None:
    """Note what became of a request."""
    if exception:
        _errors[str(exception)] += 1
    sent = context["sent"]
    _rows.append((sent, sent, sent + response_time / 1e3, OUTCOMES.index(outcome_of(exception))))


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def keep_records(environment: Any, **_: Any) -> None:
    """Write what was measured, once the last answer has come; times are the machine's monotonic clock's."""
    if _FOLDER and not isinstance(environment.runner, MasterRunner):
        make_records(_rows, _errors).save(Path(_FOLDER) / f"locust-{os.getpid()}.records")
