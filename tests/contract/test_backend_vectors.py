"""The `onnx` package's single-node models, served and asked, against the answers that the package states."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from inferry_server.app import Server
from testkit.backend_cases import BackendCase, Tensor, collect_backend_cases
from testkit.servers import running_server

pytestmark = pytest.mark.slow

# Where ONNX Runtime itself differs from the vectors, or refuses them, whoever asks.
KNOWN_DIFFERENCES = {
    "test_attention_4d_diff_heads_mask4d_padded_kv": "this combination is refused",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal": "masked scores are -inf, not the lowest",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal": "masked scores are -inf, not the lowest",
    "test_convinteger_with_padding": "a zero point of rank 1 is refused",
    "test_maxunpool_export_with_output_shape": "places values by the input's shape",
    "test_reduce_max_empty_set_bool": "no maximum of nothing for BOOL",
    "test_resize_downsample_scales_cubic_align_corners": "rounds the output's length before it aligns corners",
    "test_resize_downsample_scales_linear_align_corners": "rounds the output's length before it aligns corners",
    "test_training_dropout": "random",
    "test_training_dropout_default": "random",
    "test_training_dropout_default_mask": "random",
    "test_training_dropout_mask": "random",
}
# Operators that networks for pictures are made of: of each, some case must have been asked.
OPERATORS = {
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm",
    "GlobalAveragePool", "GlobalMaxPool", "LRN", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "PRelu",
    "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax",
    "Split", "Squeeze", "Tanh", "Transpose", "Unsqueeze",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("backend")
    for case in collect_backend_cases():
        case.save(repository)
    with running_server(repository) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(str(server.grpc_address)) as opened:
        yield opened


def served_cases(server: Server) -> list[BackendCase]:
    names = {version.model for version in server.registry.served()}
    return [case for case in collect_backend_cases() if case.name in names]


def ask(client: triton.InferenceServerClient, case: BackendCase) -> triton.InferResult:
    inputs = []
    for tensor in case.inputs:
        inputs.append(triton.InferInput(tensor.name, list(tensor.array.shape), tensor.datatype))
        inputs[-1].set_data_from_numpy(_as_bytes(tensor.array) if tensor.datatype == "BYTES" else tensor.array)
    return client.infer(case.name, inputs)


def _as_bytes(texts: NDArray[Any]) -> NDArray[np.object_]:
    return np.array([str(text).encode() for text in texts.ravel()], dtype=object).reshape(texts.shape)


def difference(expected: Tensor, got: NDArray[Any], *, rtol: float, atol: float) -> str:
    """What is wrong with an answer; empty if nothing is."""
    want = expected.array
    if got.shape != want.shape:
        return f"{expected.name} has shape {got.shape}, not {want.shape}"
    if expected.datatype == "BYTES":
        return "" if (got == _as_bytes(want)).all() else f"{expected.name} is {got}, not {want}"
    if got.dtype != want.dtype:
        return f"{expected.name} is {got.dtype}, not {want.dtype}"
    want, got = want.astype(np.float64), got.astype(np.float64)
    largest = np.abs(want[np.isfinite(want)]).max(initial=1.0)  # sums are as inexact as their largest term
    rtol = max(rtol, {"FP16": 2e-3, "BF16": 1e-2}.get(expected.datatype, 0.0))  # about two units in the last place
    close = np.isclose(got, want, rtol=rtol, atol=max(atol, 1e-5 * largest), equal_nan=True)
    return "" if close.all() else f"{expected.name}: {got[~close][:3]} is not {want[~close][:3]}"


def test_every_served_model_answers_what_the_vectors_say(server: Server, client: triton.InferenceServerClient) -> None:
    cases = served_cases(server)
    assert len(cases) >= 250
    assert {case.operator for case in cases} >= OPERATORS
    wrong: dict[str, str] = {}
    for case in cases:
        try:
            answer = ask(client, case)
        except InferenceServerException as error:
            wrong[case.name] = str(error)
            continue
        problems = (difference(t, answer.as_numpy(t.name), rtol=case.rtol, atol=case.atol) for t in case.outputs)
        if problem := next(filter(None, problems), ""):
            wrong[case.name] = problem
    assert {name: problem for name, problem in wrong.items() if name not in KNOWN_DIFFERENCES} == {}


def test_every_datatype_of_the_protocol_was_asked_and_answered(server: Server) -> None:
    cases = served_cases(server)
    datatypes = {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"}
    datatypes |= {"FP16", "BF16", "FP32", "FP64", "BYTES"}
    assert {tensor.datatype for case in cases for tensor in case.inputs} == datatypes
    assert {tensor.datatype for case in cases for tensor in case.outputs} == datatypes
    assert any(tensor.array.ndim == 0 for case in cases for tensor in case.inputs)
    assert any(tensor.array.size == 0 for case in cases for tensor in case.inputs)


def test_models_that_cannot_be_loaded_say_why_and_the_others_keep_serving(
    server: Server, client: triton.InferenceServerClient
) -> None:
    served = {case.name for case in served_cases(server)}
    failed = [case.name for case in collect_backend_cases() if case.name not in served]
    assert failed
    index = {entry.name: entry for entry in client.get_model_repository_index().models}
    assert {index[name].state for name in served} == {"READY"}
    for name in failed:
        assert index[name].state == "UNAVAILABLE"
        assert f"{name}/1/model.onnx: ONNX Runtime cannot load it: " in index[name].reason
    with pytest.raises(InferenceServerException, match="ONNX Runtime cannot load it") as error:
        client.infer(failed[0], [])
    assert error.value.status() == "StatusCode.UNAVAILABLE"
