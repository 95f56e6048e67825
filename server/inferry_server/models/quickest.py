"""How long runs take of a model that nothing disturbs: by that its versions are compared, whatever traffic they have.

A version that is asked rarely takes longer for it, as its weights have left the processor's caches: with a tenth of the
traffic the same file took up to two and a half times as long as with eight tenths, and two copies with a tenth each
differed by up to a fifth. So the versions of a model are timed whenever one is loaded: in turns, so that what else is
on the cores does the same to all, some runs in a row, so that their weights are near, and the quickest run counts, as
all this makes runs longer, never shorter.

Traffic is still felt, as it has threads of a version's session for itself. Canary divided by stable, one file, of the
chapter's network on two cores: 0.97 to 1.03 on an idle server; at half load 0.91 to 1.12, and 1.6 once in eleven loads.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from inferry_server.errors import InferenceError
from inferry_server.models.checks import can_warm_up, zeros
from inferry_server.models.registry import ModelEntry
from inferry_server.models.version import ServedVersion
from inferry_server.runtime.providers import CPU

logger = logging.getLogger(__name__)

_SIZES = (1, 2)  # more rows would take memory that the server keeps
_IN_A_ROW = 3
_MOST, _FEWEST = 1000, 10  # turns, as other work has a core for some of them; runs
_BUDGET_S = 0.3  # for each version

TimedRun = Callable[[int], object]
"""Computes so many rows."""


def time_in_turns(model: ModelEntry, *, clock: Callable[[], float] = time.monotonic) -> None:
    """Time the versions of a model, and keep the seconds of the quickest runs with the statistics of each.

    Left out are versions on a GPU, versions that cannot be run with zeros, and a version that is the only one.
    Requests may be computed meanwhile.
    """
    served = [entry.served for entry in model.ascending() if entry.served is not None]
    timed = [version for version in served if version.provider == CPU and can_warm_up(version.signature)]
    if len(timed) < 2:
        return
    most = min(version.policy.max_batch_size if version.max_request_rows else 1 for version in timed)
    sizes = [rows for rows in _SIZES if rows <= most]
    try:
        found = quickest_runs(
            [partial(_run, version) for version in timed], sizes, budget_s=_BUDGET_S * len(timed), clock=clock
        )
    except InferenceError as error:  # it takes no zeros, or has just been replaced
        logger.info("not timed: %s", error, extra={"model": timed[0].model})
        return
    for version, quickest in zip(timed, found, strict=True):
        version.statistics.quickest = quickest
        version.give_outputs_back()


def _run(version: ServedVersion, rows: int) -> None:
    inputs = {spec.name: zeros(spec, rows) for spec in version.signature.inputs}
    version.reshaping.run(version.instances[0].run)(inputs)


def quickest_runs(
    runs: Sequence[TimedRun], sizes: Sequence[int], *, budget_s: float, clock: Callable[[], float]
) -> list[dict[int, float]]:
    """Seconds of the quickest of many runs of each, by their rows.

    Args:
        runs: one or more, which are timed in turns.
        sizes: in rows, ascending. Those for which there is no time are left out, but for the smallest one.
        budget_s: of all runs; where a run of one row takes long, it runs once.
        clock: monotonic seconds.
    """
    found: list[dict[int, float]] = [{} for _ in runs]
    began = clock()
    for number in range(_MOST):
        for rows in sizes:
            if rows not in found[0] and (number or (found[0] and _FEWEST * (clock() - began) > budget_s)):
                break
            if number and clock() - began >= budget_s:
                return found
            for quickest, run in zip(found, runs, strict=True):
                for _ in range(_IN_A_ROW if number else 1):
                    started = clock()
                    run(rows)
                    quickest[rows] = min(quickest.get(rows, float("inf")), clock() - started)
    return found
