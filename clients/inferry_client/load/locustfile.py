"""What Locust runs for `inferry load`, and alone: `locust --locustfile FILE --host HOST:PORT`.

`inferry load` prepares the requests and says in the environment where they are (see `command`);
what was measured goes to a file there. Alone, the users prepare random requests of the one model
that is ready, or of $INFERRY_LOAD_MODEL, and Locust reports in its own ways. Without Locust's web page a
test ends --run-time after users sent in every process, which Locust's workers tell their master.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import locust.runners
import locust.stats
from gevent import sleep, spawn, spawn_later
from locust import events
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from inferry_client.load.payloads import read_payloads
from inferry_client.load.records import OUTCOMES, make_records
from inferry_client.load.run_time import RunTime
from inferry_client.load.summary import bucket_ms, outcome_of
from inferry_client.load.user import ModelUser, Reply

_FOLDER = os.environ.get("INFERRY_LOAD_FOLDER")
_SENDS = "inferry_sends"  # from a worker to its master
_SILENT_S = 60.0  # the longest until every process sends, beyond the time that its users take to start
_LOOK_S = 1.0  # between two looks at the processes
_logger = logging.getLogger(__name__)
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

    _told: ClassVar[bool] = False

    def measure(self, name: str, ask: Callable[[], Reply], check: Callable[[Reply], object] = id) -> Reply | None:
        """As `GrpcUser.measure`; the first request of a process is told to the master."""
        if not PreparedUser._told:
            PreparedUser._told = True
            self.environment.runner.send_message(_SENDS)
        return super().measure(name, ask, check)


@events.init.add_listener  # type: ignore[untyped-decorator]
def limit_time(environment: Any, runner: Any, **_: Any) -> None:
    """End the test --run-time after users began to send in every process; a request that was begun is waited for."""
    if isinstance(runner, WorkerRunner):
        return
    options = environment.parsed_options
    duration_s = options.run_time if options.headless and not environment.shape_class else None
    end = partial(spawn_later, duration_s, runner.quit) if duration_s else lambda: None
    run_time = RunTime(partial(_count_from_now, environment.stats), end)
    runner.register_message(_SENDS, lambda msg, **_: run_time.sends(msg.node_id, _processes(runner), options.num_users))
    if duration_s:
        options.run_time = None  # Locust's own counts from the order to spawn users
        _logger.info("The %g s of --run-time will count from when users send in every process", duration_s)
        environment.events.test_start.add_listener(lambda **_: spawn(_watch, run_time, environment, runner))


def _count_from_now(stats: Any) -> None:
    """Have Locust's rates count from the first request, not from the order to spawn users."""
    stats.total.start_time = time.time()


def _processes(runner: Any) -> list[str]:
    """The processes that may send."""
    if not isinstance(runner, MasterRunner):
        return ["local"]
    return [worker.id for worker in runner.clients.all if worker.state != STATE_MISSING]


def _watch(run_time: RunTime, environment: Any, runner: Any) -> None:
    """See to it that the time begins though a process dies, and that a test in which nobody sends fails."""
    options = environment.parsed_options
    deadline = time.monotonic() + options.num_users / options.spawn_rate + _SILENT_S
    while not run_time.look(_processes(runner), options.num_users):
        if time.monotonic() > deadline:
            _logger.error("Not every process has sent a request within %g s; the test ends", _SILENT_S)
            environment.process_exit_code = 1
            runner.quit()
            return
        sleep(_LOOK_S)


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
