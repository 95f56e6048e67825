"""Whether the values in a request can decide how long its model computes.

A CNN does the same work for every picture of a size. A graph that loops as often as an input says, or makes a
tensor as long as an input says, does not: how long its next batch takes cannot be learned from earlier ones.
"""

from collections.abc import Collection, Iterable

from inferry_server.runtime.graph_nodes import Node

# Which inputs of an operator determine the size of its output or the amount of its work; None: all of them.
_SIZING: dict[str, tuple[int, ...] | None] = {
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Compress": None,
    "ConcatFromSequence": None,
    "ConstantOfShape": (0,),
    "DFT": (1,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": None,
    "NonMaxSuppression": None,
    "NonZero": (0,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": None,
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "RoiAlign": (1,),
    "STFT": (1, 3),
    "SequenceAt": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Unique": (0,),
    "Upsample": (1,),
}
_OF_SHAPES_ALONE = {"Shape", "Size"}  # the same for all tensors of one shape, whatever is in them
_KNOWN_DOMAINS = {"", "ai.onnx.ml"}
# Of ONNX Runtime's own operators, what quantised and fused CNNs have: their work follows from their inputs' shapes.
_KNOWN_OF_MICROSOFT = {
    "BiasGelu", "DequantizeLinear", "DynamicQuantizeMatMul", "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul",
    "Gelu", "MatMulIntegerToFloat", "NhwcMaxPool", "QAttention", "QGemm", "QLinearAdd", "QLinearAveragePool",
    "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean",
    "QLinearSigmoid", "QLinearSoftmax", "QuantizeLinear", "QuickGelu", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
}  # fmt: skip


def what_data_decides(nodes: Iterable[Node], inputs: Collection[str]) -> str | None:
    """The first operator whose work may depend on the values of the model's inputs, and why.

    Args:
        nodes: of the model, each after those whose outputs it takes, as ONNX has them.
        inputs: names of the tensors that requests bring.

    Returns:
        None where shapes alone decide.
    """
    of_data = set(inputs)  # tensors whose values depend on those of the inputs
    for node in nodes:
        reason = _reason(node, of_data)
        if reason is not None:
            return f"operator {node.op_type!r} {reason}"
        if node.op_type not in _OF_SHAPES_ALONE and any(name in of_data for name in node.inputs):
            of_data.update(node.outputs)  # guard: inline-no-data-sizes
    return None


def _reason(node: Node, of_data: Collection[str]) -> str | None:
    if node.has_graph:  # guard: inline-no-control-flow
        return "is control flow"
    if node.domain not in _KNOWN_DOMAINS and not _is_known(node):
        return f"of domain {node.domain!r} is not known"
    if node.domain or node.op_type not in _SIZING:
        return None
    places = _SIZING[node.op_type]
    sizing = node.inputs if places is None else [node.inputs[i] for i in places if i < len(node.inputs)]
    if node.in_function:
        # Its inputs are known only where the function is called: any of them may depend on data.
        return "in a function computes as much as an input says" if any(sizing) else None
    return "computes as much as the data says" if any(name in of_data for name in sizing) else None


def _is_known(node: Node) -> bool:
    """Whether it is one of ONNX Runtime's operators whose work is known."""
    return node.domain == "com.microsoft" and node.op_type in _KNOWN_OF_MICROSOFT
