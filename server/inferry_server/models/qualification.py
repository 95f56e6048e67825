"""What a version must show before it serves: it runs at every size, row by row, and answers as recorded."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.request import ladder
from inferry_server.errors import (
    DeviceLostError,
    DeviceOutOfMemoryError,
    InferenceError,
    ModelLoadError,
    OutOfMemoryError,
    RecordingError,
)
from inferry_server.models.checks import RowsMismatchError, can_warm_up, warm_up
from inferry_server.models.row_proof import LONGEST_RUN_S, with_shown_rows
from inferry_server.models.sizes import tried_sizes
from inferry_server.models.version_plan import VersionPlan
from inferry_server.runtime.instance import Instance
from inferry_server.runtime.instances import LoadedSession, make_instance
from inferry_server.runtime.limited_runs import LimitedRuns

logger = logging.getLogger(__name__)

WARM_UP_BUDGET_S = 1.0
"""For the measured runs of a version's warm-up: t(n) = a + b n is known from small batches, and a
CPU needs no preparation for each size. With it, a start takes about two seconds a slow model."""


def prove(
    plan: VersionPlan, sessions: Sequence[LoadedSession], open_plain: Callable[[int], LoadedSession]
) -> tuple[VersionPlan, LatencyModel, list[Instance]]:
    """Warm every instance and compare its answers with the golden samples.

    Args:
        plan: of the version.
        sessions: one an instance.
        open_plain: loads the model once more onto the GPU of that number, without recording; called where the
            sessions record CUDA graphs.

    Returns:
        The plan, without rows where the model looked batched and is not; what warming up told of its
        speed; an instance a session.

    Raises:
        ModelLoadError: it failed, or the device did.
        RecordingError: it can be served without CUDA graphs only.
    """
    try:
        plan, shown = _examined(plan, sessions[0], open_plain)
        latency = LatencyModel(plan.policy.max_batch_size)
        instances = [
            # Without graphs, outputs find their room only where they are known to have the rows of the inputs.
            make_instance(
                one, plan.devices, plan.signature, plan.steps, bound=shown or plan.devices.options.cuda_graphs
            )
            for one in sessions
        ]
        for session, instance in zip(sessions, instances, strict=True):
            _warm_up(plan, instance, latency, budget_s=WARM_UP_BUDGET_S / len(sessions))
            golden = plan.golden_check(session.session.provider)
            if golden is not None:
                golden.check(instance.run)
    except RowsMismatchError as error:
        if plan.is_vouched_for:
            raise
        logger.warning("served without batching: %s", error, extra={"model": str(plan.folder)})
        policy = plan.settings.policy(plan.policy, batched=False)
        return prove(replace(plan, batched=False, policy=policy), sessions, open_plain)
    except (DeviceLostError, DeviceOutOfMemoryError) as error:
        raise ModelLoadError(f"{plan.model_path}: {error}") from error
    return plan, latency, instances


def _examined(
    plan: VersionPlan, loaded: LoadedSession, open_plain: Callable[[int], LoadedSession]
) -> tuple[VersionPlan, bool]:
    """The plan, without rows where they are none, and whether they were shown to be some.

    Raises:
        RecordingError: outputs of a recorded model have a fixed size, and nothing says that it is the right one.
    """
    if not plan.batched:
        return plan, False
    if loaded.memory is None or not plan.devices.options.cuda_graphs:
        return _with_shown_rows(plan, loaded)
    plain = open_plain(loaded.memory.device_id)  # a session that records would do so when it is tried
    try:
        plan, shown = _with_shown_rows(plan, plain)
    finally:
        plain.close()
    if not shown and plan.manifest is None:  # guard: graphs-of-shown-rows
        raise RecordingError("that a batch is answered row by row was not shown, and there is no manifest that says so")
    return plan, shown


def _with_shown_rows(plan: VersionPlan, loaded: LoadedSession) -> tuple[VersionPlan, bool]:
    with LimitedRuns(loaded.session, LONGEST_RUN_S) as limited:
        return with_shown_rows(plan, limited.run, loaded.session.provider)


def _warm_up(plan: VersionPlan, instance: Instance, latency: LatencyModel, *, budget_s: float) -> None:
    """Warm what can be warmed. A model nobody vouches for may need other inputs than zeros."""
    model = {"model": str(plan.folder)}
    if not can_warm_up(plan.signature):
        logger.info("not warmed: an axis besides the first has no fixed length", extra=model)
        return
    try:
        seconds = _measured_steps(plan, instance, budget_s)
    except DeviceLostError:
        raise
    except OutOfMemoryError as error:
        raise ModelLoadError(  # guard: sizes-warmed
            f"{plan.model_path}: {error}, in batches of up to {plan.policy.max_batch_size} rows (max_batch_size)"
        ) from error
    except InferenceError as error:
        if plan.manifest is not None:
            raise ModelLoadError(f"{plan.model_path}: warm-up failed: {error}") from error
        logger.warning("not warmed: %s", error, extra=model)
        return
    for rows, batch_s in seconds.items():
        latency.observe(rows, batch_s)


def _measured_steps(plan: VersionPlan, instance: Instance, budget_s: float) -> dict[int, float]:
    """Seconds by batch size: of all on a device, which prepares itself for each; on a CPU of a second's worth."""
    if instance.batch_limit is not None:
        # Largest first: what the largest allocates on a device, the others find.
        return {rows: _warm_up_step(plan, instance, rows) for rows in reversed(plan.steps or (1,))}
    return warm_up(
        instance.run,
        plan.signature,
        tried_sizes(plan.signature, ladder(plan.policy.max_batch_size)),
        batched=plan.batched,
        every_size=False,
        budget_s=budget_s,
        clock=time.monotonic,
    )


def _warm_up_step(plan: VersionPlan, instance: Instance, rows: int) -> float:
    """Seconds that so many rows take; where the device has no memory for them, in as many runs as it takes."""
    while True:
        try:
            seconds = warm_up(
                instance.run,
                plan.signature,
                (rows,),
                batched=plan.batched,
                every_size=True,
                budget_s=float("inf"),
                clock=time.monotonic,
            )
        except DeviceOutOfMemoryError as error:
            if error.rows == 1:
                raise
        else:
            return seconds[rows]
