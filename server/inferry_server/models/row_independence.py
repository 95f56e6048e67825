"""Whether a model answers each row of a batch as it answers that row alone: shown by values, or not shown.

Rows of callers share a batch, so a model that computes one row from another would give callers each other's data.
Two things are compared, and they fail for different models:

- A batch, and the same batch with some of its rows exchanged for others. The rows that stayed must have the very same
  answers, whatever came beside them. It fails for models that normalise, sort, sum, attend or reverse along the first
  axis, however weakly.
- A row alone, and in a batch. It fails for models whose answer depends on the place of a row or on the number of rows.

Every row is kept beside others at least once in each place, and every pair of places is separated, where time allows.
Of a model whose rows are too slow for that, one large batch is tried all the same: some mix rows from a number on.
What was not tried is said with the verdict: the rows of the largest batch.

`row_choice.py` has the rows; `row_comparison.py` asks the model and compares; here stands what is tried, and when.
"""

import contextlib
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inferry_proto.datatypes import Arrays
from inferry_server.errors import DeviceOutOfMemoryError, OutOfMemoryError
from inferry_server.models import made_up_rows as made_up
from inferry_server.models.answer_rounding import Rounding, same
from inferry_server.models.made_up_rows import Kind
from inferry_server.models.row_choice import RowChoice, Rows, count_rows, length_choices, with_recorded, zeros
from inferry_server.models.row_comparison import MixedError, NoTimeError, RowComparison, UnfitError
from inferry_server.runtime.graph_constants import Constants
from inferry_server.signature import Run, Signature

_FEW, _FEWEST = 3, 2  # rows of the small batches
_ROWS_OF_SMALL = 25  # rows that one examination in small batches computes, about
_SIZES_BESIDE = (3, 5, 7)  # rows of a batch, besides the powers of two
_MOST_CHOICES = 3  # of lengths that the model runs with
_ROUNDS = 4  # of large batches, each with other values
_MOST_ROWS = (
    256  # of that one batch: the rows of a quick model, of which there may be very many, take longer to compare
)


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
    _model: RowComparison = field(init=False)
    _tried: int = field(default=1, init=False)
    _varied: set[str] = field(default_factory=set, init=False)
    _large_tried: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._model = RowComparison(self.run, self.signature, self.precision, self.budget_s, self.clock)

    def judge(self) -> Finding:
        """Examine the model.

        Raises:
            DeviceLostError: the device failed.
        """
        self._model.begin()
        fitting, reason = 0, "it fails on all inputs that could be made up"
        constants = with_recorded(self.constants, self.recorded)
        try:
            for seed, lengths in enumerate(length_choices(self.signature, self.recorded)):
                choice = RowChoice(self.signature, lengths, seed=seed, recorded=self.recorded, constants=constants)
                if not choice.fits(_FEWEST):  # guard: rows-bytes
                    reason = f"a row takes {choice.row_bytes} bytes, too many to make up several"
                    continue
                fitting += self._examine(choice)
                if fitting and self._is_complete and (fitting == _MOST_CHOICES or not self._has_time(_ROWS_OF_SMALL)):
                    break
        except MixedError as error:
            return Finding(Verdict.MIXED, str(error))
        except NoTimeError:
            reason = f"one row takes longer than the {self.budget_s:g} s for all of it"
        if not fitting:
            by_chance = "it answers the same rows differently each time: by chance, or by what it was asked before"
            return Finding(Verdict.UNKNOWN, by_chance if self._model.wavers else reason)
        if not self._is_complete:  # guard: rows-varied
            silent = ", ".join(repr(one.name) for one in self.signature.outputs if one.name not in self._varied)
            return Finding(Verdict.UNKNOWN, f"output {silent} was the same for all rows that could be made up")
        return Finding(Verdict.INDEPENDENT, tried=self._tried)

    @property
    def _is_complete(self) -> bool:
        """Whether every output was seen to depend on the inputs: one that never changes cannot show anything."""
        return all(spec.name in self._varied for spec in self.signature.outputs)

    def _has_time(self, rows: int) -> bool:
        return self._model.has_time(rows)

    def _examine(self, choice: RowChoice) -> bool:
        """Try one choice of lengths; whether any rows suit the model."""
        self._model.try_other_lengths()
        with contextlib.suppress(UnfitError):
            self._model.alone(choice.rows(Kind.NORMAL, 1), 0)  # how long a row takes says how many can be afforded
        fitting: list[Kind | None] = []
        before: list[Rows] = []
        for kind in choice.kinds:
            if fitting and self._is_complete and not self._has_time(_ROWS_OF_SMALL):
                break
            few = self._few(choice)
            rows, others = choice.rows(kind, few), choice.others(kind, few)
            try:
                alike = (one for one in before[-1:] if count_rows(one) == few)
                self._in_small_batches(rows, [others, choice.peculiar(few), *alike])
            except UnfitError:
                continue
            fitting.append(kind)
            before.append(rows)
        if not fitting:
            return False
        if not self.one_batch:
            self._model.require_one_first_axis(before[0])
        for turn in range(_ROUNDS):
            try:
                self._in_large_batches(fitting, choice, turn)
            except (
                UnfitError,
                DeviceOutOfMemoryError,
                OutOfMemoryError,
            ):  # too many at once, or values that suited by chance
                fitting = fitting[:1]
        self._beside_own_values(before[0], choice)
        if not self._large_tried:
            self._in_one_large_batch(before[0], choice)
        return True

    def _few(self, choice: RowChoice) -> int:
        is_slow = self._model.is_slow(_ROWS_OF_SMALL)
        return _FEWEST if is_slow or self.largest < _FEW or not choice.fits(_FEW) else _FEW

    def _in_small_batches(self, rows: Rows, others: Sequence[Rows]) -> None:
        """Compare a few rows alone, together, in another order, and beside others.

        Raises:
            UnfitError: the model does not run with one of them alone.
            MixedError: an answer depends on more than its row.
            NoTimeError: one row takes longer than the budget.
        """
        model, count = self._model, count_rows(rows)
        alone = [model.alone(rows, i) for i in range(count)]
        rounding = model.rounding(rows, alone, [0] * count)
        batch = model.together(rows)
        model.require_like_alone(batch, alone, range(count), rounding)
        self._tried = max(self._tried, count)
        order = range(count)[::-1]
        model.require_like_alone(model.together(made_up.take(rows, order)), alone, order, rounding)
        each = [[i] for i in range(count)]
        model.require_unmoved(rows, batch, others[0], each, rounding)
        if self._has_time(count * 8):
            for beside in (*others[1:], made_up.poisoned(rows), zeros(rows)):
                model.require_unmoved(rows, batch, beside, each, rounding)
            same_row = [0] * count
            model.require_like_alone(model.together(made_up.take(rows, same_row)), alone, same_row, rounding)
        for name in batch:
            if any(not same(alone[0][name], answer[name]) for answer in alone[1:]):
                self._varied.add(name)

    def _in_large_batches(self, kinds: Sequence[Kind | None], choice: RowChoice, turn: int) -> None:
        """The same in every place of the largest batch, and in batches of other sizes, as far as time allows."""
        model = self._model
        full = count = choice.as_many(self.largest)
        if choice.is_a_length(count):
            count -= 1  # an axis that is as long as the batch could be taken for it
        if count <= _FEWEST or not self._has_time(count * 3):
            return
        self._large_tried = True
        rows, groups = choice.of_kinds(kinds, count, turn=turn)
        alone = [model.alone(rows, i) for i in range(count)]
        rounding = model.rounding(rows, alone, groups)
        batch = model.together(rows)
        model.require_like_alone(batch, alone, range(count), rounding)
        self._tried = max(self._tried, full)
        self._halves(rows, batch, choice.in_their_place(rows, turn=turn), rounding)
        usual = sorted({*_SIZES_BESIDE, *(1 << step for step in range(1, count.bit_length()))})
        rest = [] if turn else sorted(set(range(2, count)).difference(usual))  # once, for a model may know one number
        for size in (size for size in (*usual, *rest) if size < count):
            if not self._has_time(size):
                break
            model.require_like_alone(model.together(made_up.take(rows, range(size))), alone, range(size), rounding)

    def _halves(self, rows: Rows, batch: Arrays, others: Rows, rounding: Rounding) -> None:
        """Exchange half of the rows, by each binary digit of their place: so every pair of places is separated."""
        count = count_rows(rows)
        for digit in range(count.bit_length() - 1, -1, -1):
            for value in (0, 1):
                kept = [place for place in range(count) if place >> digit & 1 == value]
                if not self._has_time(count):
                    return
                if kept and len(kept) < count:
                    self._model.require_unmoved(rows, batch, others, [kept], rounding)

    def _beside_own_values(self, few: Rows, choice: RowChoice) -> None:
        """A row that stays, beside every constant that the graph has, as far as time allows."""
        model = self._model
        count = min(choice.as_many(self.largest), _MOST_ROWS)
        if count < _FEWEST or not self._has_time(count * 2):
            return
        order = [place % count_rows(few) for place in range(count)]
        rows = made_up.take(few, order)
        try:
            batch = model.together(rows)
        except (DeviceOutOfMemoryError, OutOfMemoryError):
            return
        alone = [model.alone(few, i) for i in range(count_rows(few))]
        rounding = model.rounding(rows, [alone[i] for i in order], [0] * count)
        for first in range(0, choice.own_values, count - 1):
            if not self._has_time(count):
                return
            beside = choice.beside_own_values(made_up.row(few, 0), count, first)
            model.require_unmoved(rows, batch, beside, [[0]], rounding)

    def _in_one_large_batch(self, few: Rows, choice: RowChoice) -> None:
        """A few rows, each in many places of one batch, as large as time allows; then every other row exchanged."""
        model = self._model
        self._large_tried = True
        twice = (model.affordable() - count_rows(few)) // 2  # once more, beside other rows
        count = min(choice.as_many(self.largest), twice, _MOST_ROWS)
        if count <= count_rows(few):  # guard: rows-one-large-batch
            return
        order = [place % count_rows(few) for place in range(count)]
        rows = made_up.take(few, order)
        try:
            alone = [model.alone(few, i) for i in range(count_rows(few))]
            batch = model.together(rows)
        except (UnfitError, DeviceOutOfMemoryError, OutOfMemoryError):  # too many at once, or answers that waver
            return
        rounding = model.rounding(few, alone, [0] * len(alone))
        model.require_like_alone(batch, alone, order, rounding)
        self._tried = max(self._tried, count)
        of_each = model.rounding(rows, [alone[i] for i in order], [0] * count)
        for others in choice.beside_a_few(count):
            beside = made_up.take(others, [place // 2 % count_rows(others) for place in range(count)])
            if model.affordable() < count:
                return
            if model.require_unmoved(rows, batch, beside, [range(0, count, 2)], of_each):
                return
