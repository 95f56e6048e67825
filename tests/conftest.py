"""What holds for every test."""

import gc
import logging
import signal
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, settings

from inferry_server.settings.settings import TRANSPORTS
from inferry_server.transport import environment

environment.prepare(transport="completion_queue", verbose=True)  # as the program does, before anything imports gRPC

# Speed is measured by the benchmark, never by a test: on a busy machine an example may take its time.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
# A mutant is killed by any example; the smallest is of no interest.
settings.register_profile("mutants", settings.get_profile("untimed"), phases=(Phase.explicit, Phase.generate))

# A shell that starts the tests in the background lets them ignore interrupts, and the programs they start too:
# those that are interrupted here would go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes run the tests: a file is run by one, and all of the trainer's, as they share models."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]  # not checked: it may not be installed
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "tests/trainer" if file.startswith("tests/trainer/") else file

    return FileScheduling(config, log)


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Everything that the protocol promises holds over every transport."""
    return cast("str", request.param)


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """A program that a test runs in this process chooses how much is logged; later tests read records too."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What is held by nobody must be free at once: the garbage collector does not look."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
