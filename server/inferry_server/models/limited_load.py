"""Loading a version within a time limit, on a thread that can be left behind."""

import contextlib
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable

from inferry_server.errors import ModelLoadError
from inferry_server.models.version import ServedVersion
from inferry_server.runtime.load_watch import LoadWatch

logger = logging.getLogger(__name__)

Load = Callable[[LoadWatch], ServedVersion]
Outcome = ServedVersion | BaseException

_LOWEST_PRIORITY = 19

GRACE_S = 2.0
"""How long ONNX Runtime may take to notice that it is to end: as long as one operator takes."""


def load_within(
    load: Load, watch: LoadWatch, *, timeout_s: float, name: str, grace_s: float = GRACE_S
) -> ServedVersion:
    """Load a version, and wait for it no longer than the limit.

    A load that does not end when it is told to is left behind, such as one that folds a constant of one very large
    product: its thread goes on, with the lowest priority, and gives back what it has made when it comes to an end. It
    can change nothing that is served.

    Args:
        load: loads the version; registers with the watch what can end it.
        watch: cancelled here after the limit; whoever else cancels it ends the wait too.
        timeout_s: from now on.
        name: of the version, for messages.
        grace_s: how long the load may take to end when it is told to.

    Raises:
        ModelLoadError: as `load`, or it was cancelled; with the reason.
    """
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    woken = threading.Event()  # by the end of the load, or whoever cancels it
    watch.add(woken.set)

    def run() -> None:
        outcomes.put(_outcome(load, watch, name))
        woken.set()

    thread = threading.Thread(target=run, name=f"load-{name}", daemon=True)
    thread.start()
    woken.wait(timeout_s)
    if outcomes.empty():
        watch.cancel(
            f"loading took longer than {timeout_s:g} s, which setting model_load_timeout_s allows; raise it if the "
            "model needs more"
        )
        thread.join(grace_s)
    if outcomes.empty():
        logger.error("a load does not end when it is told to, and is left behind", extra={"model": name})
        _give_way(thread)  # guard: loads-left-behind
        raise ModelLoadError(f"{name}: {watch.reason}")
    outcome = outcomes.get()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _give_way(thread: threading.Thread) -> None:
    """Let a thread compute only while nothing else wants its core: on Linux each thread has a priority of its own."""
    if sys.platform == "linux" and thread.native_id is not None:
        with contextlib.suppress(OSError):  # it has just ended
            os.setpriority(os.PRIO_PROCESS, thread.native_id, _LOWEST_PRIORITY)


def _outcome(load: Load, watch: LoadWatch, name: str) -> Outcome:
    try:
        served = load(watch)
    except BaseException as error:  # noqa: BLE001 - it is raised where the load is waited for
        return error if watch.reason is None else ModelLoadError(f"{name}: {watch.reason}")
    if watch.finish():  # guard: loads-cancelled
        return served
    served.close(0)
    return ModelLoadError(f"{name}: {watch.reason}")
