"""Is it a valid graph, with nothing in it that a server would stumble over?"""

from pathlib import Path

import onnx

from inferry_proto.foreign_errors import first_line
from inferry_trainer.errors import GateError
from inferry_trainer.gates.result import GateResult


def check_graph(path: Path) -> GateResult:
    """ONNX's own checker, types and shapes of every node included.

    Raises:
        GateError: `checker`: not a valid graph, or one that asks for operators of somebody's own.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
    except Exception as error:  # the checker raises its own kinds, protobuf others
        raise GateError("checker", f"{path.name} is not a valid ONNX graph: {first_line(error)}") from error
    foreign = sorted({opset.domain for opset in model.opset_import} - {"", "ai.onnx"})
    if foreign:
        raise GateError("checker", f"{path.name} asks for operators of {', '.join(foreign)}; expected ONNX's own only")
    opset = max(opset.version for opset in model.opset_import)
    return GateResult("checker", {"opset": opset, "nodes": len(model.graph.node)})
