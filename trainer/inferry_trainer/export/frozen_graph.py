"""From a TensorFlow function to a graph of plain operations: no variables, captured values or calls in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.framework.tensor_util import constant_value_as_shape

# What keeps TensorFlow from putting a function's body in place of its call; Keras compiles grouped convolutions so.
_CALL_ATTRIBUTES = ("_XlaMustCompile", "_noinline")


@dataclass(frozen=True, eq=False)
class FrozenGraph:
    """A graph whose only input is what the function takes.

    Attributes:
        definition: TensorFlow's `GraphDef`; calls that are left in it may be inlined.
        input: name of the tensor that the function takes.
        output: name of the one that it gives.
    """

    definition: Any
    input: str
    output: str


def freeze_function(function: Callable[[Any], Any], argument: Any) -> FrozenGraph:
    """Trace a function of one tensor and freeze what it computes.

    Variables and captured tensors become constants. What the function does besides computing its result,
    such as advancing the state of a random generator, is left out.

    Args:
        function: takes and gives one tensor; may call any Keras model.
        argument: `tf.TensorSpec` of what it takes.
    """
    # A call that gives the result is not inlined, nor is one just before it: two nodes stand behind it.
    traced = tf.compat.v1.wrap_function(lambda tensor: tf.identity(tf.identity(function(tensor))), [argument])
    pruned = traced.prune(traced.inputs[0], traced.outputs[0])
    frozen = convert_variables_to_constants_v2(pruned, lower_control_flow=False, aggressive_inlining=True)
    definition = frozen.graph.as_graph_def(add_shapes=True)
    _allow_inlining(definition)
    _write_known_sizes(definition)
    return FrozenGraph(definition, frozen.inputs[0].name, frozen.outputs[0].name)


def _allow_inlining(definition: Any) -> None:
    bodies = [node for function in definition.library.function for node in function.node_def]
    for holder in (*definition.node, *bodies, *definition.library.function):
        for name in _CALL_ATTRIBUTES:
            holder.attr.pop(name, None)


def _write_known_sizes(definition: Any) -> None:
    """Put constants where a graph asks for sizes of an image that are known, as resizing does for height and width."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        known = {}
        for slicing in graph.get_operations():
            if slicing.type == "StridedSlice" and slicing.inputs[0].op.type == "Shape":
                sizes = _known_sizes(slicing.outputs[0])
                if sizes is not None:
                    known[slicing.name] = tf.constant(sizes, slicing.outputs[0].dtype).op.node_def
    for node in definition.node:
        if node.name in known:
            name = node.name
            node.CopyFrom(known[name])
            node.name = name


def _known_sizes(tensor: Any) -> list[int] | None:
    sizes = constant_value_as_shape(tensor) if tensor.shape.rank == 1 else None
    return sizes.as_list() if sizes is not None and sizes.is_fully_defined() else None
