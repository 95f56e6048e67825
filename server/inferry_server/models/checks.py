"""What a loaded model must pass before anybody may ask it.

It runs in every batch size, and it computes what it computed when it was published.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto import manifest_pb2
from inferry_proto.datatypes import Arrays
from inferry_proto.golden import GoldenSamples, GoldenSamplesError, largest_difference
from inferry_server.errors import DeviceLostError, DeviceOutOfMemoryError, InferenceError, ModelLoadError
from inferry_server.runtime.session import OnnxSession
from inferry_server.signature import Run, Signature, TensorSpec

_MOST_ALONE = 32  # golden samples that are asked alone as well
_ALWAYS_RUN = 2  # sizes: one row always looks like as many as were asked


class RowsMismatchError(ModelLoadError):
    """A model that looks batched, and does not answer row by row."""


def give_memory_back(sessions: Iterable[OnnxSession], signature: Signature) -> None:
    """Give back what the largest batches took while a version was tried: the next large one takes it again.

    Args:
        sessions: on the CPU; nobody uses them yet.
        signature: what they take.
    """
    if not can_warm_up(signature):
        return
    inputs = {spec.name: zeros(spec, 1) for spec in signature.inputs}
    for session in sessions:
        with contextlib.suppress(InferenceError):  # it takes no zeros, which warming up has said
            session.run_and_give_back(inputs)


def take_little_first(sessions: Iterable[OnnxSession], signature: Signature) -> None:
    """Have ONNX Runtime take little memory before it takes much: what it takes first, it never gives back.

    Warming up has done so, unless zeros are the lengths of what it computes: here they are ones.

    Args:
        sessions: on the CPU.
        signature: what they take.
    """
    inputs = {spec.name: _smallest(spec, 1) for spec in signature.inputs}
    for session in sessions:
        with contextlib.suppress(InferenceError):  # it takes no ones
            session.run(inputs)  # guard: outputs-first


def give_outputs_back(sessions: Iterable[OnnxSession], signature: Signature) -> None:
    """Give back the memory of large outputs that ONNX Runtime keeps, by a run of zeros. For an idle server.

    Args:
        sessions: on the CPU; requests may use them meanwhile.
        signature: what they take.
    """
    inputs = {spec.name: _smallest(spec, 0) for spec in signature.inputs}
    for session in sessions:
        if session.keeps_outputs:
            with contextlib.suppress(InferenceError):  # it takes no zeros, or is being closed
                session.give_outputs_back(inputs)


def warm_up(
    run: Run,
    signature: Signature,
    sizes: Sequence[int],
    *,
    batched: bool,
    every_size: bool,
    budget_s: float,
    clock: Callable[[], float],
) -> dict[int, float]:
    """Run the batch sizes a device is prepared for, so that no request pays for their first time.

    A size is run twice, and the second time is measured, while the measured runs are expected to
    stay within the budget. The two smallest sizes run in any case: they show how long a batch takes,
    and whether the model answers row by row.

    Args:
        run: computes the model.
        signature: what it takes.
        sizes: ascending.
        batched: whether outputs must have the rows of the inputs.
        every_size: whether the sizes beyond the budget run too, once: a device that prepares itself
            for each size (a GPU) would do so while somebody waits.
        budget_s: of the measured runs; all of them take about twice as long.
        clock: monotonic seconds.

    Returns:
        Seconds that each measured size took, the smallest at least.

    Raises:
        RowsMismatchError: a batched model does not answer as many rows as it was given.
        InferenceError: the model failed on zeros.
    """
    seconds: dict[int, float] = {}
    for step, size in enumerate(sizes):
        within_budget = sum(seconds.values()) + _expected_s(seconds, size) <= budget_s
        if not (within_budget or every_size or step < _ALWAYS_RUN):
            break
        inputs = {spec.name: zeros(spec, size) for spec in signature.inputs}
        outputs = run(inputs)
        if batched:  # guard: proof-batched-models
            _check_rows(outputs, size)
        if within_budget:
            began = clock()
            run(inputs)
            seconds[size] = clock() - began
    return seconds


def _expected_s(seconds: Mapping[int, float], size: int) -> float:
    """At most what a larger size should take: as much a row as the largest measured one; 0 if there is none."""
    if not seconds:
        return 0.0
    largest = max(seconds)
    return seconds[largest] * size / largest


def _check_rows(outputs: Arrays, rows: int) -> None:
    for name, output in outputs.items():
        if output.shape[:1] != (rows,):
            raise RowsMismatchError(
                f"output {name!r} has shape {list(output.shape)} for {rows} rows; "
                f"a model with a batch dimension answers each row: expected [{rows}, ...]"
            )


def can_warm_up(signature: Signature) -> bool:
    """Whether every axis but the first has a known length, so that inputs can be made up."""
    return not any(spec.any_rank or -1 in spec.shape[1:] for spec in signature.inputs)


@dataclass(frozen=True)
class GoldenCheck:
    """The recorded inputs and outputs of a version, and how far its answers may be from them.

    Attributes:
        path: where they were read from.
        runs: inputs with their outputs: as many rows as may run at once, and rows alone.
        tolerance: largest accepted absolute difference on `provider`.
    """

    path: Path
    runs: tuple[tuple[Arrays, Arrays], ...]
    tolerance: float
    provider: str

    def check(self, run: Run) -> float:
        """Compare the model's answers with the recorded ones.

        Returns:
            The largest absolute difference.

        Raises:
            ModelLoadError: it exceeds the tolerance, or the samples do not fit the model.
            DeviceLostError: the device was lost while it computed them.
            DeviceOutOfMemoryError: the device has too little memory to compute them.
        """
        try:
            difference = max(largest_difference(outputs, run(inputs)) for inputs, outputs in self.runs)
        except (DeviceLostError, DeviceOutOfMemoryError):
            raise  # that says nothing of the answers
        except (GoldenSamplesError, InferenceError) as error:
            raise ModelLoadError(f"{self.path}: {error}") from error
        if not difference <= self.tolerance:  # guard: proof-golden-samples
            raise ModelLoadError(
                f"{self.path}: the model answers the golden samples with a difference of {difference:.3g}; at most "
                f"{self.tolerance:.3g} is accepted on {self.provider}: this is not the model that was verified"
            )
        return difference


def read_golden_check(
    version_folder: Path,
    recorded: manifest_pb2.GoldenSamples,
    samples: GoldenSamples,
    *,
    provider: str,
    max_batch_size: int | None,
) -> GoldenCheck:
    """The golden samples of a version.

    Args:
        version_folder: holds the file that the manifest names.
        recorded: from the manifest.
        samples: that the file holds.
        provider: what computes.
        max_batch_size: rows to run at once; None for a model without batch dimension, whose
            samples are one run.

    Raises:
        ModelLoadError: the manifest states no tolerance for this provider.
    """
    path = version_folder / recorded.file
    if provider not in recorded.tolerances:  # guard: proof-tolerance-computes
        stated = ", ".join(sorted(recorded.tolerances)) or "none"
        raise ModelLoadError(f"{path}: the manifest states no golden tolerance for {provider} (it does for: {stated})")
    runs = tuple(_runs(samples, max_batch_size))
    return GoldenCheck(path, runs, recorded.tolerances[provider], provider)


def _runs(samples: GoldenSamples, max_batch_size: int | None) -> Iterator[tuple[Arrays, Arrays]]:
    if max_batch_size is None:
        yield samples.inputs, samples.outputs
        return
    for start in range(0, samples.count, max_batch_size):
        yield _rows(samples.inputs, start, max_batch_size), _rows(samples.outputs, start, max_batch_size)
    if max_batch_size == 1:
        return
    for start in range(min(samples.count, _MOST_ALONE)):  # guard: golden-alone
        yield _rows(samples.inputs, start, 1), _rows(samples.outputs, start, 1)
    if samples.count == 1:
        yield _twice(samples.inputs), _twice(samples.outputs)


def _rows(arrays: Arrays, start: int, size: int) -> Arrays:
    return {name: array[start : start + size] for name, array in arrays.items()}


def _twice(arrays: Arrays) -> Arrays:
    return {name: np.concatenate([array, array]) for name, array in arrays.items()}


def _smallest(spec: TensorSpec, number: int) -> NDArray[Any]:
    """One row of a number, or of empty texts; lengths that are free are 1."""
    shape = [1 if axis == -1 else axis for axis in spec.shape]
    dtype = spec.datatype.dtype
    return np.full(shape, b"" if dtype.hasobject else number, dtype)


def zeros(spec: TensorSpec, rows: int) -> NDArray[Any]:
    """An input of so many rows, if it has rows: zeros, or empty texts."""
    shape = (rows if spec.shape[:1] == (-1,) else spec.shape[0], *spec.shape[1:]) if spec.shape else ()
    if spec.datatype.dtype.hasobject:
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, spec.datatype.dtype)
