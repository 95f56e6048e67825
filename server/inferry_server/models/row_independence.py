"""Whether a model answers each row of a batch as it answers that row alone: shown by values, or not shown.

Rows of callers share a batch, so a model that computes one row from another would give callers each other's data.
Two things are compared, and they fail for different models:

- A batch, and the same batch with some of its rows exchanged for others. The rows that stayed must have the very same
  answers, whatever came beside them: shapes are the same, so the arithmetic is, to the last bit. It fails for models
  that normalise, sort, sum, attend or reverse along the first axis, however weakly.
- A row alone, and in a batch. It fails for models whose answer depends on the place of a row or on the number of rows.
  Here kernels may differ, so rounding is allowed for.

Every row is kept beside others at least once in each place, and every pair of places is separated, where time allows.
Of a model whose rows are too slow for that, one large batch is tried all the same: some mix rows from a number on.
What was not tried is said with the verdict: the rows of the largest batch.

Some models mix rows only where one of them has a certain value. So values that the graph itself has, and those that
are special for a type (no number, infinities, the least, the most), stand in rows, and beside them.
"""

import contextlib
import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server.errors import DeviceLostError, DeviceOutOfMemoryError, InferenceError, OutOfMemoryError
from inferry_server.models import made_up_rows as made_up
from inferry_server.models.answer_rounding import Rounding, differ, readable, same
from inferry_server.models.made_up_rows import Kind, RowMaker
from inferry_server.models.sizes import row_bytes
from inferry_server.runtime.graph_constants import Constants
from inferry_server.signature import Run, Signature

Rows = dict[str, NDArray[Any]]

MOST_BYTES = 1 << 26
"""Of the inputs of one batch that is made up, and of its outputs."""

_FEW, _FEWEST = 3, 2  # rows of the small batches
_PECULIAR = 7  # values that are special for a type, at most
_FEW_VALUES = 64  # of what was recorded, that may be codes of something
_ROWS_OF_SMALL = 25  # rows that one examination in small batches computes, about
_SIZES_BESIDE = (3, 5, 7)  # rows of a batch, besides the powers of two
_MOST_CHOICES = 3  # of lengths that the model runs with
_ROUNDS = 4  # of large batches, each with other values
_MOST_ROWS = (
    256  # of that one batch: the rows of a quick model, of which there may be very many, take longer to compare
)
_LARGE_BUDGETS = 6  # times the budget, that a model may take whose rows are too slow for rounds of large batches


class Verdict(enum.Enum):
    """What the examination showed."""

    INDEPENDENT = "independent"
    MIXED = "mixed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """The verdict, in words what was seen of it, and the rows of the largest batch whose answers were compared."""

    verdict: Verdict
    reason: str = ""
    tried: int = field(default=1, compare=False)


class _MixedError(Exception):
    """A row's answer depends on more than the row."""


class _UnfitError(Exception):
    """The model does not run with these values or lengths."""


class _NoTimeError(Exception):
    """The budget is used up."""


@dataclass
class Examination:
    """One model under examination. Call `judge` once.

    Args:
        run: computes the model.
        signature: all inputs and outputs begin with N.
        largest: rows of the largest batch.
        precision: relative rounding of the coarsest number format inside the model; outputs of a coarser one
            count as that.
        recorded: rows that somebody recorded, which the model certainly takes.
        constants: of the model's graph.
        one_batch: whether somebody said that all first axes are one; else it is tried where names do not say so.
        budget_s: after which nothing is begun but what is needed for any verdict.
        clock: monotonic seconds.
    """

    run: Run
    signature: Signature
    largest: int
    precision: float
    recorded: Arrays | None
    one_batch: bool
    budget_s: float
    clock: Callable[[], float]
    constants: Constants = field(default_factory=Constants)
    _tried: int = field(default=1, init=False)
    _is_new: bool = field(default=True, init=False)
    _began: float = field(default=0.0, init=False)
    _row_s: float = field(default=0.0, init=False)
    _varied: set[str] = field(default_factory=set, init=False)
    _large_tried: bool = field(default=False, init=False)

    def judge(self) -> Finding:
        """Examine the model.

        Raises:
            DeviceLostError: the device failed.
        """
        self._began = self.clock()
        fitting, reason = 0, "it fails on all inputs that could be made up"
        try:
            for seed, lengths in enumerate(self._length_choices()):
                maker = RowMaker(self.signature, lengths, seed=seed, constants=self._own_constants())
                if self._row_bytes(maker) * _FEWEST > MOST_BYTES:  # guard: rows-bytes
                    reason = f"a row takes {self._row_bytes(maker)} bytes, too many to make up several"
                    continue
                fitting += self._examine(maker)
                if fitting and self._is_complete and (fitting == _MOST_CHOICES or not self._has_time(_ROWS_OF_SMALL)):
                    break
        except _MixedError as error:
            return Finding(Verdict.MIXED, str(error))
        except _NoTimeError:
            reason = f"one row takes longer than the {self.budget_s:g} s for all of it"
        if not fitting:
            return Finding(Verdict.UNKNOWN, reason)
        if not self._is_complete:  # guard: rows-varied
            silent = ", ".join(repr(one.name) for one in self.signature.outputs if one.name not in self._varied)
            return Finding(Verdict.UNKNOWN, f"output {silent} was the same for all rows that could be made up")
        return Finding(Verdict.INDEPENDENT, tried=self._tried)

    @property
    def _is_complete(self) -> bool:
        """Whether every output was seen to depend on the inputs: one that never changes cannot show anything."""
        return all(spec.name in self._varied for spec in self.signature.outputs)

    def _length_choices(self) -> Iterator[dict[str, tuple[int, ...]]]:
        if self.recorded is not None:
            yield {name: array.shape[1:] for name, array in self.recorded.items()}
        yield from made_up.length_choices(self.signature)

    def _examine(self, maker: RowMaker) -> bool:
        """Try one choice of lengths; whether any rows suit the model."""
        recorded = self.recorded or {}
        kinds = (*Kind, None) if maker.lengths == {name: one.shape[1:] for name, one in recorded.items()} else Kind
        self._is_new = True
        with contextlib.suppress(_UnfitError):
            self._alone(maker.rows(Kind.NORMAL, 1), 0)  # how long a row takes says how many can be afforded
        fitting: list[Kind | None] = []
        before: list[Rows] = []
        for kind in kinds:
            if fitting and self._is_complete and not self._has_time(_ROWS_OF_SMALL):
                break
            few = self._few(maker)
            rows, others = self._rows(maker, kind, few), maker.rows(kind or Kind.WIDE, few)
            try:
                alike = (one for one in before[-1:] if _count(one) == few)
                self._in_small_batches(rows, [others, maker.peculiar(few), *alike])
            except _UnfitError:
                continue
            fitting.append(kind)
            before.append(rows)
        if not fitting:
            return False
        if not self.one_batch:
            self._first_axes_are_one(before[0])
        for turn in range(_ROUNDS):
            try:
                self._in_large_batches(fitting, maker, turn)
            except (
                _UnfitError,
                DeviceOutOfMemoryError,
                OutOfMemoryError,
            ):  # too many at once, or values that suited by chance
                fitting = fitting[:1]
        self._beside_own_values(before[0], maker)
        if not self._large_tried:
            self._in_one_large_batch(before[0], maker)
        return True

    def _beside_own_values(self, few: Rows, maker: RowMaker) -> None:
        """A row that stays, beside every constant that the graph has, as far as time allows."""
        count = min(self.largest, MOST_BYTES // self._row_bytes(maker), _MOST_ROWS)
        if count < _FEWEST or not self._has_time(count * 2):
            return
        rows = made_up.take(few, [place % _count(few) for place in range(count)])
        try:
            batch = self._together(rows)
        except (DeviceOutOfMemoryError, OutOfMemoryError):
            return
        alone = [self._alone(few, i) for i in range(_count(few))]
        rounding = self._rounding(rows, [alone[place % _count(few)] for place in range(count)], [0] * count)
        for first in range(0, maker.own_values, count - 1):
            if not self._has_time(count):
                return
            beside = made_up.join([made_up.take(few, [0]), maker.own_rows(count - 1, first)])
            self._unmoved(rows, batch, beside, [[0]], rounding)

    def _own_constants(self) -> Constants:
        """Of the graph, and of what was recorded: values that decide something are often among few."""
        numbers = dict.fromkeys(self.constants.numbers)
        for array in (self.recorded or {}).values():
            if array.dtype.kind in "fiu" and len(few := np.unique(array)) <= _FEW_VALUES:
                numbers |= dict.fromkeys(value for value in few.tolist() if np.isfinite(value))
        return replace(self.constants, numbers=tuple(numbers))

    def _row_bytes(self, maker: RowMaker) -> int:
        """Of a row's inputs, or its outputs if these are larger."""
        return max(maker.row_bytes, row_bytes(self.signature.outputs))

    def _few(self, maker: RowMaker) -> int:
        slow = self._row_s * _ROWS_OF_SMALL > self.budget_s
        return _FEWEST if slow or self.largest < _FEW or self._row_bytes(maker) * _FEW > MOST_BYTES else _FEW

    def _rows(self, maker: RowMaker, kind: Kind | None, count: int) -> Rows:
        """Made up of a kind, or recorded ones."""
        if kind is not None or self.recorded is None:
            return maker.rows(kind or Kind.NORMAL, count)
        there = _count(self.recorded)
        return made_up.take(self.recorded, [i % there for i in range(count)])

    def _in_small_batches(self, rows: Rows, others: Sequence[Rows]) -> None:
        """Compare a few rows alone, together, in another order, and beside others.

        Raises:
            _UnfitError: the model does not run with one of them alone.
            _MixedError: an answer depends on more than its row.
            _NoTimeError: one row takes longer than the budget.
        """
        count = _count(rows)
        alone = [self._alone(rows, i) for i in range(count)]
        rounding = self._rounding(rows, alone, [0] * count)
        batch = self._together(rows)
        self._like_alone(batch, alone, range(count), rounding)
        self._tried = max(self._tried, count)
        order = range(count)[::-1]
        self._like_alone(self._together(made_up.take(rows, order)), alone, order, rounding)
        self._unmoved(rows, batch, others[0], [[i] for i in range(count)], rounding)
        if self._has_time(count * 8):
            for beside in (*others[1:], made_up.poisoned(rows), _zeros(rows)):
                self._unmoved(rows, batch, beside, [[i] for i in range(count)], rounding)
            self._like_alone(self._together(made_up.take(rows, [0] * count)), alone, [0] * count, rounding)
        for name in batch:
            if any(not same(alone[0][name], answer[name]) for answer in alone[1:]):
                self._varied.add(name)

    def _in_large_batches(self, kinds: Sequence[Kind | None], maker: RowMaker, turn: int) -> None:
        """The same in every place of the largest batch, and in batches of other sizes, as far as time allows."""
        full = count = min(self.largest, MOST_BYTES // self._row_bytes(maker))  # guard: rows-batch-bytes
        if any(count in axes for axes in maker.lengths.values()):
            count -= 1  # an axis that is as long as the batch could be taken for it
        each = -(-count // len(kinds))
        if count <= _FEWEST or not self._has_time(count * 3):
            return
        self._large_tried = True
        # Kinds alternate, so that every kind has neighbours of every other, and is in another place each turn.
        groups = [(i + turn) % len(kinds) for i in range(count)]
        order = [group * each + i // len(kinds) for i, group in enumerate(groups)]
        rows = made_up.take(made_up.join([self._rows(maker, kind, each) for kind in kinds]), order)
        alone = [self._alone(rows, i) for i in range(count)]
        rounding = self._rounding(rows, alone, groups)
        batch = self._together(rows)
        self._like_alone(batch, alone, range(count), rounding)
        self._tried = max(self._tried, full)
        match turn % 3:
            case 0:
                others = made_up.take(rows, [*range(1, count), 0])
            case 1:
                others = made_up.poisoned(rows)
            case _:
                others = maker.peculiar(count)
        self._halves(rows, batch, others, rounding)
        usual = sorted({*_SIZES_BESIDE, *(1 << step for step in range(1, count.bit_length()))})
        rest = [] if turn else sorted(set(range(2, count)).difference(usual))  # once, for a model may know one number
        for size in (size for size in (*usual, *rest) if size < count):
            if not self._has_time(size):
                break
            self._like_alone(self._together(made_up.take(rows, range(size))), alone, range(size), rounding)

    def _in_one_large_batch(self, few: Rows, maker: RowMaker) -> None:
        """A few rows, each in many places of one batch, as large as time allows; then every other row exchanged."""
        self._large_tried = True
        twice = (self._affordable() - _count(few)) // 2  # once more, beside other rows
        count = min(self.largest, MOST_BYTES // self._row_bytes(maker), twice, _MOST_ROWS)
        if count <= _count(few):  # guard: rows-one-large-batch
            return
        order = [place % _count(few) for place in range(count)]
        rows = made_up.take(few, order)
        try:
            alone = [self._alone(few, i) for i in range(_count(few))]
            batch = self._together(rows)
        except (_UnfitError, DeviceOutOfMemoryError, OutOfMemoryError):  # too many at once, or answers that waver
            return
        rounding = self._rounding(few, alone, [0] * len(alone))
        self._like_alone(batch, alone, order, rounding)
        self._tried = max(self._tried, count)
        of_each = self._rounding(rows, [alone[i] for i in order], [0] * count)
        wide = maker.rows(Kind.WIDE, _FEW)
        peculiar, own = maker.peculiar(min(_PECULIAR, count // 4)), maker.own_rows(max(1, count // 4), 0)
        of_all_kinds = made_up.join([made_up.row(wide, 0), peculiar, own])
        for others in (of_all_kinds, wide):  # only if the model takes no such values, usual ones alone
            beside = made_up.take(others, [place // 2 % _count(others) for place in range(count)])
            if self._affordable() < count or self._unmoved(rows, batch, beside, [range(0, count, 2)], of_each):
                return

    def _halves(self, rows: Rows, batch: Arrays, others: Rows, rounding: Rounding) -> None:
        """Exchange half of the rows, by each binary digit of their place: so every pair of places is separated."""
        count = _count(rows)
        for digit in range(count.bit_length() - 1, -1, -1):
            for value in (0, 1):
                kept = [place for place in range(count) if place >> digit & 1 == value]
                if not self._has_time(count):
                    return
                if kept and len(kept) < count:
                    self._unmoved(rows, batch, others, [kept], rounding)

    def _unmoved(
        self,
        rows: Rows,
        batch: Arrays,
        others: Rows,
        keep: Sequence[Sequence[int]],
        rounding: Rounding,
    ) -> bool:
        """Rows that are kept in their places, while the others are exchanged, must have the answers they had.

        Returns:
            Whether the model took the others: where it did not, nothing was shown.
        """
        was_shown = True
        for kept in keep:
            try:
                changed = self._answers(made_up.exchange(rows, others, kept))
            except InferenceError:
                was_shown = False
                continue
            for name, answers in batch.items():
                if changed[name].shape != answers.shape:
                    raise _MixedError(f"the shape of output {name!r} changes with the values of other rows")
                if same(answers[list(kept)], changed[name][list(kept)]):
                    continue
                for place in kept:
                    one = slice(place, place + 1)  # the row of a tensor [N] is no array
                    moved = rounding.moved(name, place, answers[one], changed[name][one])
                    if moved and not self._wavers(rows, name, place):  # guard: rows-others-exchanged
                        raise _MixedError(
                            f"row {place} of output {name!r} changes with the other rows of its batch of {_count(rows)}"
                        )
        return was_shown

    def _wavers(self, rows: Rows, name: str, place: int) -> bool:
        """Whether the very same batch is answered differently each time: then nothing can be told.

        Raises:
            _UnfitError: it is.
        """
        first, second = self._answers(rows), self._answers(rows)
        if differ(first[name][place : place + 1], second[name][place : place + 1], 0.0):
            raise _UnfitError
        return False

    def _like_alone(self, batch: Arrays, alone: Sequence[Arrays], order: Sequence[int], rounding: Rounding) -> None:
        """Each row of a batch must be answered as it is alone."""
        for name, answers in batch.items():
            for place, row in enumerate(order):
                single = alone[row][name]
                if answers.shape[1:] != single.shape[1:]:
                    raise _MixedError(
                        f"a row of output {name!r} has shape {list(answers.shape[1:])} in a batch of {len(answers)}, "
                        f"and {list(single.shape[1:])} alone"
                    )
                if rounding.differs(name, row, answers[place : place + 1], single):  # guard: rows-alone
                    raise _MixedError(
                        f"row {place} of output {name!r} is answered differently alone and in a batch of {len(answers)}"
                    )

    def _first_axes_are_one(self, rows: Rows) -> None:
        """Where names do not say that inputs share their first axis, the model must refuse different lengths."""
        names = {spec.axis_name(0) for spec in self.signature.inputs}
        if len(self.signature.inputs) == 1 or (len(names) == 1 and None not in names):
            return
        for spec in self.signature.inputs[1:]:
            uneven = {**rows, spec.name: rows[spec.name][:-1]}
            try:
                self.run(uneven)
            except InferenceError:
                continue
            raise _MixedError(
                f"input {spec.name!r} may have another first length than {self.signature.inputs[0].name!r}"
            )

    def _alone(self, rows: Rows, index: int) -> Arrays:
        began = self.clock()
        try:
            answers = self._answers(made_up.row(rows, index))
        except InferenceError as error:
            if not self._has_time(0):
                raise _NoTimeError from error
            raise _UnfitError from error
        took_s = self.clock() - began
        # The quickest run of these lengths: what a busy machine adds would make large batches look unaffordable.
        self._row_s = took_s if self._is_new else min(self._row_s, took_s)  # guard: rows-quickest
        self._is_new = False
        if took_s > self.budget_s:
            raise _NoTimeError
        self._check_rows(answers, 1)
        return answers

    def _together(self, rows: Rows) -> Arrays:
        try:
            answers = self._answers(rows)
        except (DeviceLostError, DeviceOutOfMemoryError, OutOfMemoryError):
            raise
        except InferenceError as error:
            raise _MixedError(f"it fails with {_count(rows)} rows that it answers alone: {error}") from error
        self._check_rows(answers, _count(rows))
        return answers

    def _check_rows(self, answers: Arrays, count: int) -> None:
        for name, array in answers.items():
            if array.shape[:1] != (count,):
                raise _MixedError(f"output {name!r} has shape {list(array.shape)} for {count} rows")

    def _answers(self, rows: Rows) -> Arrays:
        return {name: readable(array) for name, array in self.run(rows).items()}

    def _rounding(self, rows: Rows, alone: Sequence[Arrays], groups: Sequence[int]) -> Rounding:
        return Rounding(
            alone,
            groups,
            precision=self.precision,
            batch=lambda: self._answers(rows),
            nudged=lambda: self._nudged(rows),
        )

    def _nudged(self, rows: Rows) -> Arrays:
        try:
            return self._answers(made_up.nudged(rows))
        except InferenceError:
            return self._answers(rows)  # they do not suit the model, so nothing can be told from them

    def _affordable(self) -> int:
        """Rows that a slow model may compute for the large batch."""
        left_s = _LARGE_BUDGETS * self.budget_s + self._began - self.clock()
        return int(min(left_s / max(self._row_s, 1e-6), MOST_BYTES))

    def _has_time(self, rows: int) -> bool:
        return self.clock() - self._began + rows * self._row_s <= self.budget_s


def _count(rows: Arrays) -> int:
    return len(next(iter(rows.values())))


def _zeros(rows: Rows) -> Rows:
    return {
        name: np.full_like(array, "") if array.dtype.hasobject else np.zeros_like(array) for name, array in rows.items()
    }
