"""Whether a version's batches may be larger than one run, and computed in parallel runs: decided by running both."""

import logging
import time
from collections.abc import Callable

import numpy as np

from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.request import check_rows
from inferry_server.errors import InferenceError, ModelLoadError
from inferry_server.executing.core_turns import Seat
from inferry_server.models.sizes import tried_sizes
from inferry_server.models.version_plan import VersionPlan
from inferry_server.runtime.device import can_be_bound
from inferry_server.runtime.instance import Instance
from inferry_server.runtime.load_watch import LoadWatch
from inferry_server.runtime.parallel import ParallelInstance
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import load_session

logger = logging.getLogger(__name__)

_SHORTEST_S = 0.001  # of what each core computes; what is shorter gains less than the meeting of the threads costs
_MOST_EACH = 8  # full runs that a core computes one after the other; below, all that the batch needs is too little work
_LONGEST_S = 0.1  # of all runs; nobody should wait longer for a batch that has begun
_MEASURED = 3  # times, of which the shortest counts: whatever else the machine does only makes it longer
_MOST_SLOWDOWN = 1.25  # of a row; less may be noise all the same


def parallel_instance(
    plan: VersionPlan,
    instance: Instance,
    latency: LatencyModel,
    *,
    threads: int,
    seat: Seat,
    watch: LoadWatch | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ParallelInstance | None:
    """An instance that computes several full runs at the same time; None where one after the other is as fast.

    Where a full run is short, each core computes several of them, so that the threads need not meet so often.

    Args:
        plan: of a version on the CPU with one instance.
        instance: warmed.
        latency: what warming up told; told of the largest batch, if there is such an instance.
        threads: that compute a batch.
        seat: before the cores, so that what is measured has them to itself.
        watch: ends what ONNX Runtime does for the version.
        clock: monotonic seconds.
    """
    full, each = plan.policy.max_batch_size, _runs_each(latency.batch_s(plan.policy.max_batch_size))
    most = full * threads * each
    fits = each > 0 and latency.batch_s(most) <= _LONGEST_S
    fits &= most in tried_sizes(plan.signature, (1, most))
    if not (plan.batched and threads > 1 and can_be_bound(plan.signature) and fits):  # guard: parallel-runs-not-outputs
        return None
    model = {"model": str(plan.folder)}
    try:
        single = load_session(plan.source or plan.model_path, providers=(CPU,), intra_op_num_threads=1, watch=watch)
    except ModelLoadError as error:
        logger.warning("served without parallel runs: %s", error, extra=model)
        return None
    parallel = ParallelInstance(instance, single, run_rows=full, parallel_runs=threads, runs_each=each)
    try:
        golden = plan.golden_check(CPU)
        if golden is not None:
            golden.check(single.run)  # guard: parallel-runs-second
        rounds = [
            (_run_s(plan, instance, full, seat, clock), _run_s(plan, parallel, most, seat, clock))
            for _ in range(1 + _MEASURED)
        ]
    except (ModelLoadError, InferenceError) as error:
        parallel.give_up()
        logger.warning("served without parallel runs: %s", error, extra=model)
        return None
    full_s, all_s = map(min, zip(*rounds[1:], strict=True))  # without the first, which allocates
    one_by_one_s = threads * each * full_s
    if all_s > _MOST_SLOWDOWN * one_by_one_s:  # guard: parallel-runs-not
        parallel.give_up()
        logger.info(
            "served without parallel runs: they took %.1f ms, as many one after the other %.1f ms",
            all_s * 1e3, one_by_one_s * 1e3, extra=model,
        )  # fmt: skip
        return None
    latency.observe(most, all_s)
    return parallel


def _runs_each(full_s: float) -> int:
    """How many full runs each core is to compute of a batch, a power of two; 0: no number of them is worth it."""
    each = 1
    while full_s * each < _SHORTEST_S and each <= _MOST_EACH:
        each *= 2
    return each if each <= _MOST_EACH else 0  # guard: parallel-runs-few


def _run_s(plan: VersionPlan, instance: Instance, rows: int, seat: Seat, clock: Callable[[], float]) -> float:
    """Seconds that so many rows take, all zeros."""
    inputs = {spec.name: np.zeros((rows, *spec.shape[1:]), spec.datatype.dtype) for spec in plan.signature.inputs}
    seat.acquire()  # guard: parallel-runs-measured
    began = ended = clock()
    try:
        check_rows(instance.run(inputs), rows)
        ended = clock()
    finally:
        seat.release(ended - began, again=False)
    return ended - began
