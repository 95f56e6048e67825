"""Which versions the thread that reads requests must not compute, for all of their batches."""

from inferry_server.models.version_plan import VersionPlan
from inferry_server.runtime.data_costs import what_data_decides
from inferry_server.runtime.graph_nodes import read_nodes
from inferry_server.signature import TensorSpec


def why_apart(plan: VersionPlan) -> str | None:
    """Why it cannot be told from earlier batches of a version how long the next one takes.

    Returns:
        None where rows alone decide: its tensors have fixed shapes, and its graph does the same for all values.
    """
    for spec in plan.signature.inputs:
        if spec.datatype.dtype.hasobject:
            return f"input {spec.name!r} is of BYTES, of any length"
        if spec.any_rank or -1 in _fixed_axes(spec, batched=plan.batched):  # guard: inline-no-free-lengths
            return f"input {spec.name!r} has free lengths {spec.shape_text}"
    try:
        return what_data_decides(
            read_nodes(plan.model_path if plan.source is None else plan.source.model),
            [spec.name for spec in plan.signature.inputs],
        )
    except (OSError, ValueError) as error:  # ONNX Runtime has read it, and may know formats that we do not
        return f"its operators cannot be read: {error}"


def _fixed_axes(spec: TensorSpec, *, batched: bool) -> tuple[int, ...]:
    """The axes that must have a fixed length: rows are counted, and bounded."""
    return spec.shape[1:] if batched else spec.shape
