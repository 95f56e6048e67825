"""Decide whether the requests to a version share batches: only if its rows were shown to be independent."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from inferry_server.errors import InferenceError, ModelLoadError
from inferry_server.models.row_independence import Examination, Finding, Verdict
from inferry_server.models.version_plan import VersionPlan
from inferry_server.runtime.graph_constants import Constants, read_constants
from inferry_server.runtime.graph_nodes import read_nodes
from inferry_server.runtime.providers import CPU, CUDA
from inferry_server.signature import Run

logger = logging.getLogger(__name__)

BUDGET_S = 0.75
"""Seconds that a version is examined for; a slow one needs about a dozen rows besides."""

LONGEST_RUN_S = 6 * BUDGET_S
"""Of one batch of made-up rows: models that loop as often as their inputs say would compute the largest ones for ever.
"""

_FLOAT32, _TENSOR_FLOAT32, _HALF, _BFLOAT16, _EIGHT_BITS = 2.0**-23, 2.0**-11, 2.0**-10, 2.0**-8, 2.0**-8
_WAY_OUT_OF_LIMIT = "state max_batch_size in config.pbtxt for larger ones"
_WAY_OUT = "state max_batch_size in config.pbtxt if they are rows all the same"


def with_shown_rows(
    plan: VersionPlan,
    run: Run,
    provider: str,
    *,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[VersionPlan, bool]:
    """The plan, without batches where rows were not shown to be independent.

    A version that nobody vouches for is batched only if that was shown, in batches as large as were tried. Where a
    manifest or `max_batch_size` says that it takes rows, their word stands until it is refuted.

    Args:
        plan: of a version that looks batched.
        run: computes the model.
        provider: what computes.
        budget_s: for all of it.
        clock: monotonic seconds.

    Returns:
        The plan, and whether rows were shown to be independent.

    Raises:
        ModelLoadError: rows of a version with a manifest are not independent: that is not what was verified.
        DeviceLostError: the device failed.
    """
    finding = _finding(plan, run, provider, budget_s, clock)
    model = {"model": str(plan.folder)}
    if finding.verdict is Verdict.INDEPENDENT:
        if plan.is_vouched_for or finding.tried >= plan.policy.max_batch_size:  # guard: rows-as-many-as-tried
            return plan, True
        logger.info("batches have at most %d rows: in the time there was, larger ones were not tried; %s",
                    finding.tried, _WAY_OUT_OF_LIMIT, extra=model)  # fmt: skip
        return replace(plan, policy=replace(plan.policy, max_batch_size=finding.tried)), True
    if finding.verdict is Verdict.UNKNOWN and plan.is_vouched_for:
        logger.warning("batched on the word of its owner: that rows are independent was not shown: %s",
                       finding.reason, extra=model)  # fmt: skip
        return plan, False
    if plan.manifest is not None:
        raise ModelLoadError(f"{plan.model_path}: the rows of a batch are not independent: {finding.reason}")
    if finding.verdict is Verdict.MIXED:
        logger.warning("served without batching: its rows are not independent: %s", finding.reason, extra=model)
    else:
        logger.warning("served without batching: that its rows are independent was not shown: %s; %s",
                       finding.reason, _WAY_OUT, extra=model)  # fmt: skip
    policy = plan.settings.policy(plan.policy, batched=False)
    return replace(plan, batched=False, policy=policy), False  # guard: rows-alone-unless-shown


def _finding(plan: VersionPlan, run: Run, provider: str, budget_s: float, clock: Callable[[], float]) -> Finding:
    first_axes = plan.signature.first_axes
    if len(first_axes) > 1 and not plan.is_vouched_for:  # guard: rows-axis-names
        named = ", ".join(f"{axis!r} of {tensor!r}" for axis, tensor in first_axes.items())
        return Finding(Verdict.UNKNOWN, f"first axes have different names: {named}")
    golden = plan.golden_check(provider)
    examination = Examination(
        run,
        plan.signature,
        largest=max(2, plan.policy.max_batch_size),  # larger requests are cut, even into single rows
        precision=_precision(plan, provider),
        recorded=golden.runs[0][0] if golden is not None else None,
        one_batch=plan.is_vouched_for,
        budget_s=budget_s,
        clock=clock,
        constants=_constants(plan),
    )
    try:
        return examination.judge()
    except InferenceError as error:
        return Finding(Verdict.UNKNOWN, str(error))


def _constants(plan: VersionPlan) -> Constants:
    try:
        return read_constants(plan.model_path if plan.source is None else plan.source.model)
    except (OSError, ValueError):
        return Constants()  # ONNX Runtime has read it, and may know formats that we do not


def _precision(plan: VersionPlan, provider: str) -> float:
    """Relative rounding of the coarsest number format that the model computes with."""
    formats = [_FLOAT32]
    if provider != CPU and (provider != CUDA or plan.devices.options.tf32):
        formats.append(_TENSOR_FLOAT32)
    try:
        for node in read_nodes(plan.model_path if plan.source is None else plan.source.model):
            if "Quantize" in node.op_type or node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
                formats.append(_EIGHT_BITS)
            elif node.casts_to is not None:
                formats.append(_CASTS.get(node.casts_to, _FLOAT32))
    except (OSError, ValueError):
        pass  # ONNX Runtime has read it, and may know formats that we do not
    return max(formats)


_CASTS = {10: _HALF, 16: _BFLOAT16}
"""By ONNX's number of the element type that a graph casts to."""
