"""Attacks by tiny requests whose answers would be gigabytes, and the models that can be asked for them."""

from collections import Counter
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bench.attacks.by_grpc import calls
from bench.attacks.target import Target
from bench.contenders import Further
from inferry_proto.open_inference_pb2 import ModelInferRequest
from testkit import onnx_models

WIDE, LONG = "wide", "long"
_OFTEN = 1 << 18  # a byte of the input is a MiB of the output
_LONG = 300_000_000  # numbers of four bytes: 1.2 GB


def told(target: Target) -> Counter[str]:
    """20 requests of 4 KiB for 4 GiB, by a model whose output's shape follows from that of its input."""
    asked = ModelInferRequest(model_name=WIDE, raw_input_contents=[bytes(4096)])
    asked.inputs.add(name="x", datatype="UINT8", shape=(1, 4096))
    return calls(target, [asked.SerializeToString()] * 20, at_once=2)


def untold(target: Target) -> Counter[str]:
    """Four requests of 8 bytes for 1.2 GB, by a model whose output is as long as its input says."""
    asked = ModelInferRequest(model_name=LONG, raw_input_contents=[np.array([_LONG]).tobytes()])
    asked.inputs.add(name="length", datatype="INT64", shape=(1,))
    return calls(target, [asked.SerializeToString()] * 4, at_once=2)


def save_wide(repository: Path) -> Further:
    """`y` = each byte of `x` so many times: uint8 `[N, L]` to float32 `[N, 262144, L]`."""
    onnx_models.save_model(
        repository / WIDE / "1" / "model.onnx",
        [
            helper.make_node("Cast", ["x"], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["levels", "middle"], ["z"]),
            helper.make_node("Tile", ["z", "often"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", "L"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", _OFTEN, "L"])],
        [numpy_helper.from_array(np.array([1]), "middle"), numpy_helper.from_array(np.array([1, _OFTEN, 1]), "often")],
    )
    return Further(repository / WIDE, _config("x", "TYPE_UINT8", "-1, -1", f"-1, {_OFTEN}, -1"))


def save_long(repository: Path) -> Further:
    """`y` = as many ones as `length` says."""
    onnx_models.save_model(
        repository / LONG / "1" / "model.onnx",
        [helper.make_node("Expand", ["one", "length"], ["y"])],
        [helper.make_tensor_value_info("length", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M"])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    return Further(repository / LONG, _config("length", "TYPE_INT64", "1", "-1"))


def _config(name: str, kind: str, shape: str, answer: str) -> str:
    return (
        f'max_batch_size: 0\ninput [ {{ name: "{name}" data_type: {kind} dims: [ {shape} ] }} ]\n'
        f'output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {answer} ] }} ]\n'
        "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
    )
