"""Whether large batches of a version are computed in parallel runs, which warming up decides."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from inferry_server.batching.assembly import check_rows
from inferry_server.batching.latency import LatencyModel
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

_SHORTEST_S = 0.001  # of a full batch; what is shorter gains less than the meeting of the threads costs
_LONGEST_S = 0.1  # of all runs; nobody should wait longer for a batch that has begun
_MEASURED = 3  # times, of which the shortest counts: whatever else the machine does only makes it longer
_MOST_SLOWDOWN = 1.25  # of a row; less may be noise all the same


def with_parallel_runs(
    plan: VersionPlan,
    instance: Instance,
    latency: LatencyModel,
    *,
    threads: int,
    seat: Seat,
    watch: LoadWatch | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[VersionPlan, Instance]:
    """Let a version compute several full batches at the same time, unless that is slower than one after the other.

    Args:
        plan: of a version on the CPU with one instance.
        instance: warmed.
        latency: what warming up told; told of the parallel runs, if there will be any.
        threads: that compute a batch.
        seat: before the cores, so that what is measured has them to itself.
        watch: ends what ONNX Runtime does for the version.
        clock: monotonic seconds.

    Returns:
        Both as they were, or a plan whose policy takes rows for so many runs, with an instance for them.
    """
    policy = replace(plan.policy, parallel_runs=threads)
    full_s, all_s = latency.batch_s(policy.max_batch_size), latency.batch_s(policy.most_rows)
    fits = full_s >= _SHORTEST_S and all_s <= _LONGEST_S
    fits &= policy.most_rows in tried_sizes(plan.signature, (1, policy.most_rows))
    if not (plan.batched and threads > 1 and can_be_bound(plan.signature) and fits):  # guard: parallel-runs-not-outputs
        return plan, instance
    model = {"model": str(plan.folder)}
    try:
        single = load_session(plan.source or plan.model_path, providers=(CPU,), intra_op_num_threads=1, watch=watch)
        golden = plan.golden_check(CPU)
        if golden is not None:
            golden.check(single.run)  # guard: parallel-runs-second
        parallel = ParallelInstance(instance, single, policy.runs, threads=threads)
        rounds = [
            (
                _run_s(plan, instance, policy.max_batch_size, seat, clock),
                _run_s(plan, parallel, policy.most_rows, seat, clock),
            )
            for _ in range(1 + _MEASURED)
        ]
    except (ModelLoadError, InferenceError) as error:
        logger.warning("served without parallel runs: %s", error, extra=model)
        return plan, instance
    full_s, all_s = map(min, zip(*rounds[1:], strict=True))  # without the first, which allocates
    if all_s > _MOST_SLOWDOWN * threads * full_s:  # guard: parallel-runs-not
        logger.info(
            "served without parallel runs: they took %.1f ms, as many one after the other %.1f ms",
            all_s * 1e3, threads * full_s * 1e3, extra=model,
        )  # fmt: skip
        return plan, instance
    latency.observe(policy.most_rows, all_s)
    return replace(plan, policy=policy), parallel


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
