"""Rows that a model can be tried with when nobody recorded any: random values of several kinds, and lengths.

Nothing is known of what a model takes but datatypes and shapes. So values are of several kinds, from the usual scale
of a network's inputs to those that reach thresholds, and a kind that the model fails on is left out.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server.runtime.graph_constants import Constants
from inferry_server.signature import Signature, TensorSpec

_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz 0123456789"))
_WORDS = ("0", "1", "2.5", "a", "b", "yes", "no", "true", "red", "the", "male", "female", "")
_LENGTHS = (5, 16, 64, 224)
"""Of free axes: sequences take any of them, convolutional networks often multiples of 32 only."""


class Kind(enum.Enum):
    """What values are like. Integers of the first kind are indices that every table has; OWN ones are in the graph."""

    NORMAL = enum.auto()
    UNIT = enum.auto()
    OWN = enum.auto()
    WIDE = enum.auto()
    LEVELS = enum.auto()
    SPARSE = enum.auto()
    COUNTS = enum.auto()


class RowMaker:
    """Makes rows for one choice of lengths.

    Args:
        signature: whose inputs all begin with N.
        lengths: by input, those of the axes behind N.
        seed: of the values.
        constants: of the model's graph, which it may compare values with.
    """

    def __init__(
        self,
        signature: Signature,
        lengths: Mapping[str, tuple[int, ...]],
        *,
        seed: int = 0,
        constants: Constants | None = None,
    ) -> None:
        self._inputs = signature.inputs
        self.lengths = lengths
        self._random = np.random.default_rng(seed)
        self._constants = constants or Constants()
        self._own_turn = 0  # so that all of the constants come up, where there is time for so many rows

    @property
    def row_bytes(self) -> int:
        """Of all inputs of one row."""
        elements = [_product(self.lengths[spec.name]) * spec.datatype.dtype.itemsize for spec in self._inputs]
        return max(1, sum(elements))

    def rows(self, kind: Kind, count: int) -> dict[str, NDArray[Any]]:
        """New rows of a kind, by input."""
        rows = {spec.name: self._array(spec, kind, (count, *self.lengths[spec.name])) for spec in self._inputs}
        self._own_turn += count if kind is Kind.OWN else 0
        return rows

    def peculiar(self, count: int) -> dict[str, NDArray[Any]]:
        """New rows with what a model may take for something special: no numbers, infinities, the least and the most."""
        return {
            spec.name: self._sprinkled(
                self._array(spec, Kind.NORMAL, (count, *self.lengths[spec.name])), _peculiar(spec.datatype.dtype), 0
            )
            for spec in self._inputs
        }

    @property
    def own_values(self) -> int:
        """How many rows it takes until each constant has filled one."""
        return max((len(_own_values(spec.datatype.dtype, self._constants)) for spec in self._inputs), default=0)

    def own_rows(self, count: int, first: int) -> dict[str, NDArray[Any]]:
        """New rows, each of one constant, from the one of that number on."""
        self._own_turn = first
        return self.rows(Kind.OWN, count)

    def _own(self, spec: TensorSpec, shape: tuple[int, ...]) -> NDArray[Any]:
        """Rows of constants of the graph, and of what is just beside them."""
        values = _own_values(spec.datatype.dtype, self._constants)
        base = self._array(spec, Kind.NORMAL, shape)
        return self._sprinkled(base, values, self._own_turn)

    def _sprinkled(self, array: NDArray[Any], values: Sequence[Any], first: int) -> NDArray[Any]:
        """Rows that have one of the values each: everywhere, in one place, or in every other place."""
        rows = array.reshape(len(array), _product(array.shape[1:]))  # a view: the row of a tensor [N] is no array
        for place, flat in enumerate(rows):
            value = values[(first + place) % len(values)]
            match (first + place) // len(values) % 3:
                case 0:
                    flat[:] = value
                case 1:
                    flat[self._random.integers(0, max(1, flat.size), min(1, flat.size))] = value
                case _:
                    flat[self._random.random(flat.size) < 0.5] = value
        return array

    def _array(self, spec: TensorSpec, kind: Kind, shape: tuple[int, ...]) -> NDArray[Any]:
        dtype, random = spec.datatype.dtype, self._random
        if kind is Kind.OWN:
            return self._own(spec, shape)
        if dtype.hasobject:
            return _texts(random, kind, shape)
        if dtype.kind == "b":
            return _flags(random, kind, shape)
        if dtype.kind == "V":  # BF16: the upper half of a float32
            bits = _fractions(random, kind, shape).astype(np.float32).view(np.uint32) >> 16
            return bits.astype(np.uint16).view(dtype)
        if dtype.kind == "f":
            with np.errstate(over="ignore"):  # what is too large for a half is infinite, which a caller may send too
                return _fractions(random, kind, shape).astype(dtype)
        info = np.iinfo(dtype.str)
        if kind is Kind.NORMAL and dtype.itemsize > 1:
            return _flags(random, kind, shape).astype(dtype)
        low, high = _RANGES[kind]
        if dtype.itemsize == 1 and kind is not Kind.COUNTS:  # pixels, and what was quantised: all levels are usual
            if kind is Kind.NORMAL:
                return _levels(random, shape, info.min, info.max).astype(dtype)
            low, high = int(info.min), int(info.max)
        return random.integers(max(low, int(info.min)), min(high, int(info.max)), shape, dtype, endpoint=True)


_RANGES = {
    Kind.NORMAL: (0, 1),
    Kind.UNIT: (0, 99),
    Kind.WIDE: (-1000, 1000),
    Kind.LEVELS: (0, 7),
    Kind.SPARSE: (-(1 << 31), (1 << 31) - 1),
    Kind.COUNTS: (1, 3),
}
"""Of integers, both ends included."""


def length_choices(signature: Signature) -> Iterator[dict[str, tuple[int, ...]]]:
    """Lengths of the axes behind N by input, to be tried in turn; those that are fixed stay as they are.

    Axes with one name have one length. At first all free axes have the same one: where names are missing, some may
    have to agree.
    """
    if all(-1 not in spec.shape[1:] for spec in signature.inputs):
        yield {spec.name: spec.shape[1:] for spec in signature.inputs}
        return
    for length in _LENGTHS:
        for spread in (0, length):
            yield _lengths(signature, length, spread)


def _lengths(signature: Signature, length: int, spread: int) -> dict[str, tuple[int, ...]]:
    """Free axes with `length`, every other one with `spread` more."""
    known: dict[str, int] = {}
    chosen: dict[str, tuple[int, ...]] = {}
    for spec in signature.inputs:
        axes: list[int] = []
        for place, axis in enumerate(spec.shape[1:], 1):
            name = spec.axis_name(place) or f"{spec.name} {place}"
            if axis == -1:
                axis = known.setdefault(name, length + spread * (len(known) % 2))
            axes.append(axis)
        chosen[spec.name] = tuple(axes)
    return chosen


def row(arrays: Arrays, index: int) -> dict[str, NDArray[Any]]:
    """One row of every input."""
    return {name: array[index : index + 1] for name, array in arrays.items()}


def take(arrays: Arrays, indices: Sequence[int]) -> dict[str, NDArray[Any]]:
    """Rows in an order; a row may be taken more than once."""
    return {name: array[list(indices)] for name, array in arrays.items()}


def join(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """The rows of several, one behind the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def exchange(arrays: Arrays, others: Arrays, kept: Sequence[int]) -> dict[str, NDArray[Any]]:
    """The rows that are kept, and all others from elsewhere."""
    exchanged = {name: array.copy() for name, array in others.items()}
    for name, array in arrays.items():
        exchanged[name][list(kept)] = array[list(kept)]
    return exchanged


def poisoned(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Rows whose fractions are no numbers: whatever is computed from one of them is none either. Others move on."""
    return {
        name: np.full_like(array, np.nan) if array.dtype.kind == "f" else np.roll(array, 1, axis=0)
        for name, array in arrays.items()
    }


def nudged(arrays: Arrays, seed: int = 1) -> dict[str, NDArray[Any]]:
    """The rows, each fraction moved by about as much as it is rounded by."""
    random = np.random.default_rng(seed)
    return {
        name: (array * (1 + np.finfo(array.dtype).eps * random.choice([-1, 1], array.shape))).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in arrays.items()
    }


def _peculiar(dtype: np.dtype[Any]) -> Sequence[Any]:
    """Values that are special for a type."""
    if dtype.hasobject:
        return ("", "nan", "-1", "\u00e4" * 300)
    if dtype.kind == "b":
        return (True, False)
    if dtype.kind == "V":
        return tuple(np.array(bits, np.uint16).view(dtype)[()] for bits in (0x7FC0, 0x7F80, 0xFF80, 0x7F7F, 0x3F80, 0))
    if dtype.kind == "f":
        most = np.finfo(dtype).max
        return tuple(np.array([np.nan, np.inf, -np.inf, most, -most, 1, 0, -1], dtype))
    info = np.iinfo(dtype.str)
    return tuple(np.array([info.max, info.min, 1, 0], dtype))


def _own_values(dtype: np.dtype[Any], constants: Constants) -> Sequence[Any]:
    """The constants of a graph as values of a type, with what is just beside them; 0 and 1 where there are none."""
    if dtype.hasobject:
        return constants.texts or ("", "0", "1")
    if dtype.kind == "b":
        return (True, False)
    numbers = constants.numbers or (0, 1)
    if dtype.kind in "iu":
        info = np.iinfo(dtype.str)
        near = (round(number) + step for number in numbers for step in (0, 1, -1))
        return tuple(dict.fromkeys(number for number in near if info.min <= number <= info.max)) or (0, 1)
    wide = np.array(numbers, np.float64)
    with np.errstate(over="ignore"):
        values = np.concatenate([wide, np.nextafter(wide.astype(np.float32), np.inf), wide - 1, wide + 1])
    values = values[np.abs(values) <= (np.finfo(dtype).max if dtype.kind == "f" else _BFLOAT16_MAX)]
    if dtype.kind == "f":
        return tuple(values.astype(dtype)) or (dtype.type(0), dtype.type(1))
    return tuple((values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(dtype))


_BFLOAT16_MAX = 3.38e38


def _flags(random: np.random.Generator, kind: Kind, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """True and False; of the first kind, whole rows of either too: what asks for any, or all, of a batch sees them."""
    shares = np.full(shape[0], 0.5)
    if kind is Kind.NORMAL:  # guard: rows-flags
        shares = np.resize([0.0, 1.0, 0.5], shape[0])[random.permutation(shape[0])]
    return np.asarray(random.random(shape) < shares.reshape(-1, *(1 for _ in shape[1:])))


def _levels(random: np.random.Generator, shape: tuple[int, ...], lowest: int, highest: int) -> NDArray[np.float64]:
    """Whole numbers of another range in each row, as pictures are of other brightness and contrast."""
    ends = np.sort(random.integers(lowest, highest, (2, shape[0], *(1 for _ in shape[1:])), endpoint=True), axis=0)
    return np.asarray(np.floor(ends[0] + random.random(shape) * (ends[1] - ends[0] + 1)))


def _fractions(random: np.random.Generator, kind: Kind, shape: tuple[int, ...]) -> NDArray[np.float64]:
    each = (shape[0], *(1 for _ in shape[1:]))  # rows differ in brightness and contrast too, as pictures do
    match kind:
        case Kind.NORMAL:
            spread = 10 ** random.uniform(-1, 0.5, each)
            return np.asarray(random.standard_normal(shape) * spread + random.standard_normal(each))
        case Kind.UNIT:
            return random.random(shape) * random.uniform(0.1, 1, each)
        case Kind.WIDE:
            signs = random.choice([-1.0, 1.0], shape)
            return np.asarray(10 ** random.uniform(-3, 4, shape) * signs)
        case Kind.LEVELS:
            return np.floor(random.uniform(0, 256, shape))
        case Kind.SPARSE:
            return random.choice([0.0, 0.0, 1.0, -1.0], shape)
        case Kind.COUNTS | Kind.OWN:
            return np.floor(random.uniform(1, 4, shape))


def _texts(random: np.random.Generator, kind: Kind, shape: tuple[int, ...]) -> NDArray[np.object_]:
    texts = np.empty(_product(shape), dtype=object)
    for i in range(len(texts)):
        if kind in (Kind.NORMAL, Kind.LEVELS, Kind.COUNTS):
            texts[i] = str(random.integers(*_RANGES[kind], endpoint=True))
        elif kind is Kind.UNIT:
            texts[i] = _WORDS[random.integers(len(_WORDS))]
        else:
            texts[i] = "".join(random.choice(_LETTERS, random.integers(1, 12)))
    return texts.reshape(shape)


def _product(shape: Sequence[int]) -> int:
    count = 1  # not numpy's: a length that somebody wrote into a file must not wrap around
    for axis in shape:
        count *= axis
    return count
