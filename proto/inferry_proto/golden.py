"""Golden samples: a few inputs with the outputs that the model must give for them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferry_proto.datatypes import Arrays
from inferry_proto.files import read_file
from inferry_proto.npz import NpzError, read_arrays

_INPUTS, _OUTPUTS = "inputs/", "outputs/"


MOST_GOLDEN_BYTES = 1 << 30
"""Of a file of golden samples, and of the arrays in it."""


class GoldenSamplesError(ValueError):
    """A golden sample file that cannot be read, or outputs that cannot be compared with it."""


@dataclass(frozen=True)
class GoldenSamples:
    """Inputs and expected outputs by tensor name; the first axis of each counts the samples."""

    inputs: Arrays
    outputs: Arrays

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.inputs.values())))


def save_golden_samples(path: Path, samples: GoldenSamples) -> None:
    """Write samples as an .npz with arrays `inputs/<tensor>` and `outputs/<tensor>`."""
    arrays = {_INPUTS + name: array for name, array in samples.inputs.items()}
    arrays |= {_OUTPUTS + name: array for name, array in samples.outputs.items()}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_golden_samples(path: Path) -> GoldenSamples:
    """Read samples that `save_golden_samples` wrote.

    Raises:
        GoldenSamplesError: the file is missing, damaged, too large, or holds no inputs or no outputs.
    """
    try:
        data = read_file(path, most_bytes=MOST_GOLDEN_BYTES)
    except OSError as error:
        raise GoldenSamplesError(f"{path} cannot be read as golden samples: {error}") from error
    return parse_golden_samples(data, path)


def parse_golden_samples(data: bytes, path: Path) -> GoldenSamples:
    """Samples from the bytes of a file.

    Args:
        data: of an .npz file.
        path: where it lay, for messages.

    Raises:
        GoldenSamplesError: it is damaged, would become too large, or holds no inputs or no outputs.
    """
    try:
        arrays = dict(read_arrays(data, most_bytes=MOST_GOLDEN_BYTES))
    except NpzError as error:
        raise GoldenSamplesError(f"{path} cannot be read as golden samples: {error}") from error
    inputs = {name.removeprefix(_INPUTS): a for name, a in arrays.items() if name.startswith(_INPUTS)}
    outputs = {name.removeprefix(_OUTPUTS): a for name, a in arrays.items() if name.startswith(_OUTPUTS)}
    if not inputs or not outputs:
        raise GoldenSamplesError(
            f"{path} holds {sorted(arrays)}; expected arrays named {_INPUTS}<tensor> and {_OUTPUTS}<tensor>"
        )
    counts = {len(array) if array.ndim else 0 for array in (*inputs.values(), *outputs.values())}
    if len(counts) != 1 or 0 in counts:
        raise GoldenSamplesError(f"{path} holds arrays of {sorted(counts)} samples; expected as many in each, and some")
    return GoldenSamples(inputs, outputs)


def largest_difference(expected: Arrays, actual: Arrays) -> float:
    """The largest absolute difference between two sets of outputs; NaN anywhere gives infinity.

    Raises:
        GoldenSamplesError: an expected output is missing or has another shape.
    """
    largest = 0.0
    for name, wanted in expected.items():
        if name not in actual:
            raise GoldenSamplesError(f"output {name!r} is missing; the model gives {sorted(actual)}")
        found = actual[name]
        if found.shape != wanted.shape:
            raise GoldenSamplesError(f"output {name!r} has shape {found.shape}; expected {wanted.shape}")
        difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
        if np.isnan(difference).any():
            return float("inf")
        largest = max(largest, float(difference.max(initial=0.0)))
    return largest
