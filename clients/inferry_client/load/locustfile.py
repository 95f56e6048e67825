"""What Locust runs for `inferry load`, and alone: `locust --locustfile FILE --host HOST:PORT`.

`inferry load` prepares the requests and says in the environment where they are (see `command`);
what was measured goes to a file there, and the test ends a duration after users sent in every
process, which Locust's workers tell their master. Alone, the users prepare random requests of the one model
that is ready, or of $INFERRY_LOAD_MODEL, and Locust reports in its own ways.
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import locust.runners
import locust.stats
from gevent import spawn_later
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from inferry_client.load.payloads import read_payloads
from inferry_client.load.records import OUTCOMES, make_records
from inferry_client.load.run_time import RunTime
from inferry_client.load.summary import bucket_ms, outcome_of
from inferry_client.load.user import ModelUser, Reply

_FOLDER = os.environ.get("INFERRY_LOAD_FOLDER")
_DURATION_S = float(os.environ.get("INFERRY_LOAD_DURATION_S", "0"))
_SENDS = "inferry_sends"  # from a worker to its master
locust.stats.bucket_response_time = bucket_ms
if _FOLDER:
    # `inferry load` sees a process end. One that gets no time for some seconds has not: it is not given up.
    locust.runners.HEARTBEAT_LIVENESS = 60

_rows: list[tuple[float, float, float, int]] = []
_errors: Counter[str] = Counter()


class PreparedUser(ModelUser):
    """Sends what `inferry load` prepared, or what it finds fitting."""

    timeout_s = float(os.environ.get("INFERRY_LOAD_TIMEOUT_S", "10"))
    model = os.environ.get("INFERRY_LOAD_MODEL", "")
    payloads = read_payloads(Path(_FOLDER)) if _FOLDER else None

    _tells: ClassVar[bool] = not _FOLDER  # alone, Locust limits the time

    def measure(self, name: str, ask: Callable[[], Reply], check: Callable[[Reply], object] = id) -> Reply | None:
        """As `GrpcUser.measure`; the first request of a process is told to the master."""
        if not PreparedUser._tells:
            PreparedUser._tells = True
            self.environment.runner.send_message(_SENDS)
        return super().measure(name, ask, check)


@events.init.add_listener  # type: ignore[untyped-decorator]
def limit_time(environment: Any, runner: Any, **_: Any) -> None:
    """End the test a duration after users began to send in every process; a request that was begun is waited for."""
    if _FOLDER and not isinstance(runner, WorkerRunner):
        run_time = RunTime(environment.parsed_options.expect_workers, lambda: spawn_later(_DURATION_S, runner.quit))
        runner.register_message(_SENDS, lambda msg, **_: run_time.sends(msg.node_id))


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
