"""How far two answers to one row may be apart for rounding alone."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays

_NUDGES = 8.0  # rounding inside a model moves an answer by so much more than rounding its inputs does
_SLACK = 16.0  # units in the last place that may differ where nothing should: less than anybody can tell
_QUANTISED = 2.0**-10  # coarser than this are the formats whose steps are outputs too


class Rounding:
    """What rounding may change in the answers to some rows.

    A sum of n terms loses about `sqrt(n)` units in the last place to another order of the terms, and at `1/epsilon`
    terms half of its digits: two answers that agree in fewer are not the same. Models that amplify the rounding of
    their inputs are allowed more, by what moving the inputs that little does to them.

    Args:
        alone: the answers to each row.
        groups: the rows whose answers have one scale, by row.
        precision: relative rounding of the coarsest number format inside the model.
        batch: answers to all rows at once.
        nudged: the same, when inputs are moved by their rounding.
    """

    def __init__(
        self,
        alone: Sequence[Arrays],
        groups: Sequence[int],
        *,
        precision: float,
        batch: Callable[[], Arrays],
        nudged: Callable[[], Arrays],
    ) -> None:
        self._alone = alone
        self._groups = groups
        self._precision = precision
        self._batch, self._nudged = batch, nudged
        self._moved: tuple[Arrays, Arrays] | None = None
        self._scales: dict[tuple[str, int], float] = {}
        self._scales_of_places: dict[tuple[str, int], NDArray[np.float64] | float] = {}

    def differs(self, name: str, row: int, one: NDArray[Any], other: NDArray[Any]) -> bool:
        """Whether two answers to a row, given by different kernels, differ by more than rounding."""
        if not differ(one, other, self._half_of_the_digits(name, row)):
            return False
        return differ(one, other, self._half_of_the_digits(name, row) + _NUDGES * self._movement(name, row))

    def moved(self, name: str, row: int, one: NDArray[Any], other: NDArray[Any]) -> bool:
        """Whether two answers to a row, given by the same kernels, differ at all.

        Each place of an answer has its own scale: what stands beside a time stamp or a size in pixels may be a
        probability.
        """
        if one.dtype.kind != "f":
            return differ(one, other, 0.0)
        return differ(one, other, _SLACK * float(np.finfo(one.dtype).eps) * self._scale_of_places(name, row))

    def _half_of_the_digits(self, name: str, row: int) -> float:
        dtype = self._alone[row][name].dtype
        if dtype.kind == "f":
            return math.sqrt(max(float(np.finfo(dtype).eps), self._precision)) * self._scale(name, row)
        if dtype.kind in "iu" and dtype.itemsize == 1 and self._precision > _QUANTISED:
            return math.sqrt(self._precision) * self._scale(name, row)
        return 0.0

    def _scale(self, name: str, row: int) -> float:
        """The largest answer among the rows of its group; infinite ones do not count."""
        group = self._groups[row]
        if (name, group) not in self._scales:  # guard: rows-quickly-compared
            answers = [one[name] for one, of in zip(self._alone, self._groups, strict=True) if of == group]
            self._scales[name, group] = max((_largest(array) for array in answers), default=0.0)
        return self._scales[name, group]

    def _scale_of_places(self, name: str, row: int) -> NDArray[np.float64] | float:
        """The largest answer in each place among the rows of its group; that of all places if they are not alike."""
        group = self._groups[row]
        known = self._scales_of_places.get((name, group))
        if known is None:
            answers = [one[name] for one, of in zip(self._alone, self._groups, strict=True) if of == group]
            alike = {array.shape for array in answers} == {answers[0].shape}  # guard: rows-scale-of-places
            known = self._scales_of_places[name, group] = (
                _largest_of_places(answers) if alike else self._scale(name, row)
            )
        return known

    def _movement(self, name: str, row: int) -> float:
        if self._moved is None:
            self._moved = self._batch(), self._nudged()
        before, after = (answers[name][row : row + 1] for answers in self._moved)
        if before.dtype.kind not in "fiu" or before.shape != after.shape:
            return 0.0
        with np.errstate(invalid="ignore", over="ignore"):
            return _largest(after.astype(np.float64) - before.astype(np.float64))


def differ(one: NDArray[Any], other: NDArray[Any], allowed: float | NDArray[np.float64]) -> bool:
    """Whether two arrays of one shape differ anywhere by more than is allowed; NaN and infinities agree in place."""
    if one.dtype.kind not in "fiu" or (one.dtype.kind != "f" and not np.any(allowed)):
        return not np.array_equal(one, other)
    if np.array_equal(one, other):
        return False
    left, right = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        agree = (left == right) | (np.abs(left - right) <= allowed) | (np.isnan(left) & np.isnan(right))
    return not bool(agree.all())


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays are the same in every bit that counts."""
    return one.shape == other.shape and not differ(one, other, 0.0)


def readable(array: NDArray[Any]) -> NDArray[Any]:
    """An answer as numbers that NumPy knows: BF16, which is two opaque bytes to it, as float32."""
    if array.dtype.kind != "V":
        return array
    bits = np.frombuffer(array.tobytes(), np.uint16).astype(np.uint32) << 16
    return bits.view(np.float32).reshape(array.shape)


def _largest_of_places(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """As `_largest`, of arrays of one shape, for each place."""
    largest = np.zeros(arrays[0].shape)
    for array in {id(array): array for array in arrays}.values():  # the same answer may stand for many rows
        np.maximum(largest, np.abs(array.astype(np.float64)), out=largest, where=np.isfinite(array))
    return largest


def _largest(array: NDArray[Any]) -> float:
    if array.dtype.kind not in "fiu":
        return 0.0
    finite = np.abs(array[np.isfinite(array)].astype(np.float64))
    return float(finite.max(initial=0.0))
