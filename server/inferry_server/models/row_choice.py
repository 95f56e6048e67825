"""The rows that a model is tried with: made up or recorded, of one kind or of all, and those that stand beside them.

Some models mix rows only where one of them has a certain value. So values that the graph itself has, and those that
are special for a type (no number, infinities, the least, the most), stand in rows, and beside them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server.models import made_up_rows as made_up
from inferry_server.models.made_up_rows import Kind, RowMaker
from inferry_server.models.sizes import row_bytes
from inferry_server.runtime.graph_constants import Constants
from inferry_server.signature import Signature

Rows = dict[str, NDArray[Any]]

MOST_BYTES = 1 << 26
"""Of the inputs of one batch that is made up, and of its outputs."""

_PECULIAR = 7  # values that are special for a type, at most
_FEW_VALUES = 64  # of what was recorded, that may be codes of something
_OF_WIDE = 3  # rows


class RowChoice:
    """The rows to try with one choice of lengths.

    Args:
        signature: all inputs and outputs begin with N.
        lengths: by input, those of the axes behind N.
        seed: of the values that are made up.
        recorded: rows that somebody recorded, which the model certainly takes.
        constants: that the model may compare values with; those of its graph, and recorded ones.

    Attributes:
        row_bytes: of a row's inputs, or its outputs if these are larger.
        kinds: of rows that can be had; None: recorded ones, where they have these lengths.
    """

    def __init__(
        self,
        signature: Signature,
        lengths: Mapping[str, tuple[int, ...]],
        *,
        seed: int,
        recorded: Arrays | None,
        constants: Constants,
    ) -> None:
        self._maker = RowMaker(signature, lengths, seed=seed, constants=constants)
        self._recorded = recorded
        self.row_bytes = max(self._maker.row_bytes, row_bytes(signature.outputs))
        are_as_recorded = lengths == _lengths(recorded or {})
        self.kinds: Sequence[Kind | None] = (*Kind, None) if are_as_recorded else tuple(Kind)

    def fits(self, count: int) -> bool:
        """Whether so many rows are few enough bytes."""
        return self.row_bytes * count <= MOST_BYTES

    def as_many(self, largest: int) -> int:
        """Rows of a batch: the largest one, or fewer if these are too many bytes."""
        return min(largest, MOST_BYTES // self.row_bytes)  # guard: rows-batch-bytes

    def is_a_length(self, count: int) -> bool:
        """Whether an axis behind N is as long."""
        return any(count in axes for axes in self._maker.lengths.values())

    def rows(self, kind: Kind | None, count: int) -> Rows:
        """New rows of a kind, or recorded ones."""
        if kind is not None or self._recorded is None:
            return self._maker.rows(kind or Kind.NORMAL, count)
        there = count_rows(self._recorded)
        return made_up.take(self._recorded, [i % there for i in range(count)])

    def others(self, kind: Kind | None, count: int) -> Rows:
        """New rows to stand beside those of a kind."""
        return self._maker.rows(kind or Kind.WIDE, count)

    def peculiar(self, count: int) -> Rows:
        """New rows with values that are special for their type."""
        return self._maker.peculiar(count)

    def of_kinds(self, kinds: Sequence[Kind | None], count: int, *, turn: int) -> tuple[Rows, Sequence[int]]:
        """New rows of several kinds.

        Kinds alternate, so that every kind has neighbours of every other, and is in another place each turn.

        Returns:
            The rows, and the number of each one's kind.
        """
        each = -(-count // len(kinds))
        groups = [(i + turn) % len(kinds) for i in range(count)]
        order = [group * each + i // len(kinds) for i, group in enumerate(groups)]
        return made_up.take(made_up.join([self.rows(kind, each) for kind in kinds]), order), groups

    def in_their_place(self, rows: Rows, *, turn: int) -> Rows:
        """Rows to exchange others for: by turns their neighbours, no numbers, and values special for a type."""
        count = count_rows(rows)
        match turn % 3:
            case 0:
                return made_up.take(rows, [*range(1, count), 0])
            case 1:
                return made_up.poisoned(rows)
            case _:
                return self.peculiar(count)

    def beside_a_few(self, count: int) -> tuple[Rows, Rows]:
        """New rows of all kinds for a batch of so many, and usual ones alone, for models that take no others."""
        wide = self._maker.rows(Kind.WIDE, _OF_WIDE)
        peculiar, own = self.peculiar(min(_PECULIAR, count // 4)), self._maker.own_rows(max(1, count // 4), 0)
        return made_up.join([made_up.row(wide, 0), peculiar, own]), wide

    @property
    def own_values(self) -> int:
        """How many rows it takes until each constant has filled one."""
        return self._maker.own_values

    def beside_own_values(self, row: Rows, count: int, first: int) -> Rows:
        """A batch of so many rows: the one given, then new ones of a constant each, from number `first` on."""
        return made_up.join([row, self._maker.own_rows(count - 1, first)])


def length_choices(signature: Signature, recorded: Arrays | None) -> Iterator[Mapping[str, tuple[int, ...]]]:
    """Lengths of the axes behind N by input, to be tried in turn: those of recorded rows first."""
    if recorded is not None:
        yield _lengths(recorded)
    yield from made_up.length_choices(signature)


def with_recorded(constants: Constants, recorded: Arrays | None) -> Constants:
    """The constants of a graph, and those of recorded rows: values that decide something are often among few."""
    numbers = dict.fromkeys(constants.numbers)
    for array in (recorded or {}).values():
        if array.dtype.kind in "fiu" and len(few := np.unique(array)) <= _FEW_VALUES:
            numbers |= dict.fromkeys(value for value in few.tolist() if np.isfinite(value))
    return replace(constants, numbers=tuple(numbers))


def count_rows(rows: Arrays) -> int:
    """Rows of every input."""
    return len(next(iter(rows.values())))


def zeros(rows: Rows) -> Rows:
    """As many rows of zeros, of False, of empty texts."""
    return {
        name: np.full_like(array, "") if array.dtype.hasobject else np.zeros_like(array) for name, array in rows.items()
    }


def _lengths(rows: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in rows.items()}
