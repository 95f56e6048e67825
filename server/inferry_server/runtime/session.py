"""One ONNX model in ONNX Runtime."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inferry_proto.datatypes import DATATYPES, Arrays
from inferry_proto.foreign_errors import first_line
from inferry_proto.model_source import ModelSource
from inferry_server.errors import InferenceError, ModelLoadError, OutOfMemoryError, RecordingError
from inferry_server.runtime.bfloat16 import from_ort_value, to_ort_value
from inferry_server.runtime.cuda_options import ProviderOptions
from inferry_server.runtime.graph_nodes import read_unranked
from inferry_server.runtime.load_watch import LoadWatch
from inferry_server.runtime.model_source import read_model
from inferry_server.runtime.providers import dropped_reason
from inferry_server.signature import Signature, TensorSpec

# ONNX Runtime's names of element types, and the protocol's.
_ELEMENT_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_BF16 = DATATYPES["BF16"]
_BYTES = DATATYPES["BYTES"]
_ZIP_MAP = (
    ". That is what the operator ZipMap makes of a classifier's probabilities: convert the model again without it, in "
    "skl2onnx and onnxmltools with options={'zipmap': False}, and the probabilities are a tensor"
)

THREADING = {
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "20",
    "session.force_spinning_stop": "1",
}
"""How the threads of a session wait: for the next operator of a batch they spin for 20 us, for a batch they sleep.

Without the first, a thread is woken for every operator: the MNIST network alone took 0.10 ms more a request (p50 of the
round trip, one at a time, medians of 25 alternating rounds). Without the last, idle threads would use the cores.
"""
KEPT_BYTES = 16 << 20
"""Outputs of at least so many bytes are given back after a burst; of smaller ones, ONNX Runtime keeps the memory."""
_LOG_FATAL_ONLY = 4  # its errors are raised as well, and reported by us


def load_session(
    source: Path | ModelSource,
    *,
    providers: Sequence[str | ProviderOptions],
    intra_op_num_threads: int,
    watch: LoadWatch | None = None,
) -> "OnnxSession":
    """Load an ONNX model. Nothing of it is read from files afterwards.

    Args:
        source: a model in memory, or the path of one as `read_model` takes it.
        providers: execution providers in order of preference, with their options where they have some.
        intra_op_num_threads: threads that compute one batch together.
        watch: told how to end the load, and the runs of the session.

    Raises:
        ModelLoadError: ONNX Runtime refuses the file, goes on without the first provider, or a tensor has a
            type the protocol lacks.
        RecordingError: CUDA graphs were asked for, and the model does not allow them.
    """
    if isinstance(source, Path):
        source = read_model(source)
    path = source.path
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_num_threads
    options.inter_op_num_threads = 1  # the graphs of CNNs are chains
    options.log_severity_level = _LOG_FATAL_ONLY
    for name, value in THREADING.items():
        options.add_session_config_entry(name, value)
    if source.weights:
        names, contents = list(source.weights), list(source.weights.values())
        options.add_external_initializers_from_files_in_memory(names, contents, list(map(len, contents)))
    if watch is not None:
        watch.add(partial(options.set_load_cancellation_flag, True))
    try:
        # Its own fallback would go on with the CPU, print to standard output, and tell nobody.
        session = onnxruntime.InferenceSession(source.model, options, providers=list(providers), enable_fallback=0)
    except Exception as error:
        if "graph capture feature" in str(error):
            raise RecordingError(f"{path}: {first_line(error)}") from error
        raise ModelLoadError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from error
    _check_provider(path, wanted=providers[0], taken=session.get_providers())
    unranked = _unranked(source)
    signature = Signature(
        inputs=tuple(_tensor_spec(path, tensor, unranked) for tensor in session.get_inputs()),
        outputs=tuple(_tensor_spec(path, tensor, unranked) for tensor in session.get_outputs()),
    )
    _check_bfloat16(path, signature)
    loaded = OnnxSession(session, signature)
    if watch is not None:
        watch.add(loaded.end_runs)
    return loaded


class OnnxSession:
    """A loaded model. Any thread may call `run`; one call uses every thread of the session.

    Attributes:
        keeps_outputs: whether ONNX Runtime may keep the memory of large outputs although it was told to give it back:
            it does so at the end of a run, when the outputs are still in use.
    """

    def __init__(self, session: onnxruntime.InferenceSession, signature: Signature) -> None:
        self._session = session
        self._output_names = [spec.name for spec in signature.outputs]
        self._bfloat16 = {spec.name for spec in signature.inputs + signature.outputs if spec.datatype is _BF16}
        self.signature = signature
        self._shrinks = self._ended = self.keeps_outputs = False
        self._run_options = self._new_run_options()

    def give_memory_back(self) -> None:
        """Have ONNX Runtime give memory back after each run, for a model whose requests differ much in size.

        Else it keeps for ever what the largest request took.
        """
        self._shrinks = True
        self._run_options = self._new_run_options()

    def run_and_give_back(self, inputs: Arrays) -> None:
        """Run once more, and give back what earlier runs took and this one does not need. Only before requests come.

        Args:
            inputs: as of `run`.

        Raises:
            InferenceError: the model failed on these inputs.
        """
        usual, self._run_options = self._run_options, self._new_run_options(shrinks=True)
        try:
            self.run(inputs)
        finally:
            self._run_options = usual

    def give_outputs_back(self, inputs: Arrays) -> None:
        """Run once more, so that memory of earlier outputs goes back. Other runs may be under way.

        Args:
            inputs: small ones, as of `run`.

        Raises:
            InferenceError: the model failed on these inputs.
        """
        try:
            self.run(inputs)
        finally:
            self.keeps_outputs = False  # the outputs of this run are small

    def interrupter(self) -> Callable[[], None]:
        """A function that ends the runs that are under way now, between two of their operators. Later runs go on."""
        options, self._run_options = self._run_options, self._new_run_options()

        def end() -> None:
            options.terminate = True

        return end

    def end_runs(self) -> None:
        """Let every run fail: those that are under way, between two of their operators, and all later ones."""
        self._ended = True
        self._run_options.terminate = True

    def close(self) -> None:
        """Give back the model and its memory; nothing can be computed any more."""
        del self._session

    @property
    def provider(self) -> str:
        """The execution provider that was really taken."""
        provider: str = self._session.get_providers()[0]
        return provider

    def io_binding(self) -> Any:
        """A new binding of inputs and outputs to memory, for `run_bound`."""
        return self._session.io_binding()

    def run_bound(self, binding: Any, run_options: Any) -> None:
        """Compute from bound memory to bound memory. Raises ONNX Runtime's own errors."""
        self._session.run_with_iobinding(binding, run_options)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Compute every output.

        Args:
            inputs: by name, with the datatypes of the signature; a batched model's share N.

        Returns:
            Outputs by name; arrays of their own.

        Raises:
            InferenceError: the model failed on these inputs.
        """
        try:
            if self._bfloat16:
                found = self._run_values(inputs)
            else:
                outputs = self._session.run(self._output_names, dict(inputs), self._run_options)
                found = dict(zip(self._output_names, map(np.asarray, outputs), strict=True))
        except Exception as error:
            raise _failure(error) from error
        if self._shrinks and sum([array.nbytes for array in found.values()]) >= KEPT_BYTES:  # guard: outputs-kept
            self.keeps_outputs = True
        return found

    def _run_values(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        values = {name: to_ort_value(array, bfloat16=name in self._bfloat16) for name, array in inputs.items()}
        outputs = self._session.run_with_ort_values(self._output_names, values, self._run_options)
        return {
            spec.name: from_ort_value(value, dtype=spec.datatype.dtype, bfloat16=spec.name in self._bfloat16)
            for spec, value in zip(self.signature.outputs, outputs, strict=True)
        }

    def _new_run_options(self, *, shrinks: bool = False) -> Any:
        options = onnxruntime.RunOptions()
        options.log_severity_level = _LOG_FATAL_ONLY
        if self._shrinks or shrinks:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        options.terminate = self._ended
        return options


def _check_provider(path: Path, *, wanted: str | ProviderOptions, taken: Sequence[str]) -> None:
    """ONNX Runtime drops a provider whose libraries do not load, with a line in its log, and goes on."""
    name = wanted if isinstance(wanted, str) else wanted[0]
    if name not in taken:
        raise ModelLoadError(f"{path}: ONNX Runtime dropped {name}: {dropped_reason(name)}")


def _check_bfloat16(path: Path, signature: Signature) -> None:
    """ONNX Runtime's Python takes texts as NumPy arrays only, and bfloat16 as its own tensors only: not together."""
    texts = [spec.name for spec in signature.inputs if spec.datatype is _BYTES]
    halves = [spec.name for spec in signature.inputs + signature.outputs if spec.datatype is _BF16]
    if texts and halves:
        raise ModelLoadError(
            f"{path}: input {texts[0]!r} is BYTES and tensor {halves[0]!r} BF16; ONNX Runtime's Python API runs models "
            "with the one or the other: cast BF16 to FP32 inside the graph"
        )


def _unranked(source: ModelSource) -> frozenset[str]:
    """Tensors of any number of axes: ONNX Runtime says of them what it says of scalars."""
    try:
        return read_unranked(source.model)
    except (OSError, ValueError):
        return frozenset()  # ONNX Runtime has read it, and may know formats that we do not


def _tensor_spec(path: Path, tensor: Any, unranked: frozenset[str]) -> TensorSpec:
    datatype = _ELEMENT_TYPES.get(tensor.type)
    if datatype is None:
        raise ModelLoadError(
            f"{path}: tensor {tensor.name!r} has type {tensor.type}; the protocol carries {', '.join(_ELEMENT_TYPES)}"
            + (_ZIP_MAP if tensor.type.startswith("seq(map(") else "")
        )
    shape = tuple(axis if isinstance(axis, int) and axis >= 0 else -1 for axis in tensor.shape)
    names = tuple(axis if isinstance(axis, str) else None for axis in tensor.shape)
    any_rank = not shape and tensor.name in unranked  # guard: shapes-of-any-rank
    return TensorSpec(tensor.name, DATATYPES[datatype], shape, names, any_rank)


_NO_MEMORY = re.compile(r"Failed to allocate memory for requested buffer of size (\d+)|bad_alloc|bad allocation")


def _failure(error: Exception) -> InferenceError:
    found = _NO_MEMORY.search(str(error))
    if found is not None or isinstance(error, MemoryError):
        size = f" of {found[1]} bytes" if found is not None and found[1] else ""
        return OutOfMemoryError(f"the model failed: there is no memory for a tensor{size} that it computes")
    return InferenceError(f"the model failed: {first_line(error)}")
