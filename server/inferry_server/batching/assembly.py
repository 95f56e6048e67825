"""Rows of several requests to one batch, and its outputs back to each."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server.batching.request import BatchSlice
from inferry_server.errors import RowCountError

PadTo = Callable[[int], int]  # rows of a batch to the rows it runs with


def exact(rows: int) -> int:
    """Run a batch as it is: on a CPU every row costs its time."""
    return rows


def ladder(max_batch_size: int) -> tuple[int, ...]:
    """The batch sizes a device is prepared for: powers of two up to the limit, and the limit."""
    sizes = [1 << step for step in range(max_batch_size.bit_length()) if 1 << step < max_batch_size]
    return (*sizes, max_batch_size)


def pad_to_ladder(max_batch_size: int) -> PadTo:
    """Run a batch as the next larger step: on a GPU a new size costs more than some rows of padding."""
    steps = ladder(max_batch_size)
    return lambda rows: next(step for step in steps if step >= rows)


def assemble(slices: Sequence[BatchSlice], pad_to: PadTo) -> Arrays:
    """The inputs of a batch, by name; a lone request's own arrays, where nothing is padded.

    Padding repeats the last row: rows of zeros could be something the model fails on.
    """
    rows = sum([part.rows for part in slices])
    padding = pad_to(rows) - rows
    if len(slices) == 1 and not padding:  # guard: cost-full-batch
        return aligned(slices[0].inputs)
    parts = [part.inputs for part in slices]
    return {name: _concatenate([part[name] for part in parts], padding) for name in parts[0]}


def aligned(inputs: Arrays) -> Arrays:
    """Inputs that can be computed with: uncopied, but for views into messages that begin anywhere."""
    if all(array.flags.aligned for array in inputs.values()):
        return inputs
    return {name: array if array.flags.aligned else array.copy() for name, array in inputs.items()}


def scatter_outputs(slices: Sequence[BatchSlice], outputs: Arrays, *, batched: bool) -> list[Arrays]:
    """The rows of every output that belong to each slice, as views; what was padding goes to nobody.

    Args:
        slices: as they were assembled.
        outputs: of the whole batch.
        batched: whether outputs have rows; without, there is one slice, and all is its.
    """
    if not batched:
        return [outputs]
    scattered: list[Arrays] = []
    start = 0
    for part in slices:
        stop = start + part.rows
        scattered.append({name: array[start:stop] for name, array in outputs.items()})  # guard: answers-padding-goes
        start = stop
    return scattered


def check_rows(outputs: Arrays, rows: int) -> None:
    """Refuse outputs that cannot be given back row by row: nobody may get a neighbour's.

    Raises:
        RowCountError: names the output and the model's way out.
    """
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise RowCountError(
                f"the model answered {rows} rows with output {name!r} of shape {list(array.shape)}; expected a row "
                "for each. A model whose first axis counts no rows says so with max_batch_size: 0 in config.pbtxt"
            )


def _concatenate(arrays: list[NDArray[Any]], padding: int) -> NDArray[Any]:
    if padding:
        arrays = [*arrays, np.repeat(arrays[-1][-1:], padding, axis=0)]  # guard: answers-padding-no
    return np.concatenate(arrays)
