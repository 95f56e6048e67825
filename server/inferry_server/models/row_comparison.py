"""What a model answers to rows, alone and together, compared; and for how many rows there is time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inferry_proto.datatypes import Arrays
from inferry_server.errors import DeviceLostError, DeviceOutOfMemoryError, InferenceError, OutOfMemoryError
from inferry_server.models import made_up_rows as made_up
from inferry_server.models.answer_rounding import Rounding, differ, readable, same
from inferry_server.models.row_choice import Rows, count_rows
from inferry_server.runtime.limited_runs import RunTooLongError
from inferry_server.signature import Run, Signature

_LARGE_BUDGETS = 6  # times the budget, that a model may take whose rows are too slow for rounds of large batches
_COUNTLESS = 1 << 26  # rows: more are never asked for


class MixedError(Exception):
    """A row's answer depends on more than the row."""


class UnfitError(Exception):
    """The model does not run with these values or lengths."""


class NoTimeError(Exception):
    """The budget is used up."""


@dataclass
class RowComparison:
    """One model that is asked about rows. Call `begin` before anything else.

    Args:
        run: computes the model.
        signature: all inputs and outputs begin with N.
        precision: relative rounding of the coarsest number format inside the model.
        budget_s: how long it may compute altogether.
        clock: monotonic seconds.

    Attributes:
        wavers: whether the model was seen to answer the very same batch differently each time.
    """

    run: Run
    signature: Signature
    precision: float
    budget_s: float
    clock: Callable[[], float]
    wavers: bool = field(default=False, init=False)
    _began: float = field(default=0.0, init=False)
    _row_s: float = field(default=0.0, init=False)
    _is_new: bool = field(default=True, init=False)

    def begin(self) -> None:
        """The budget counts from now on."""
        self._began = self.clock()

    def has_time(self, rows: int) -> bool:
        """Whether so many rows can be computed within the budget."""
        return self.clock() - self._began + rows * self._row_s <= self.budget_s

    def is_slow(self, rows: int) -> bool:
        """Whether so many rows alone would take longer than the budget."""
        return self._row_s * rows > self.budget_s

    def affordable(self) -> int:
        """Rows that a slow model may compute in one large batch, beyond the budget."""
        left_s = _LARGE_BUDGETS * self.budget_s + self._began - self.clock()
        return int(min(left_s / max(self._row_s, 1e-6), _COUNTLESS))

    def try_other_lengths(self) -> None:
        """Rows of other lengths come: how long one takes is measured anew."""
        self._is_new = True

    def alone(self, rows: Rows, index: int) -> Arrays:
        """The answer to one of the rows by itself.

        Raises:
            UnfitError: the model does not run with it.
            NoTimeError: it took longer than the budget, or failed when that was used up.
            MixedError: the answer is not one row.
        """
        began = self.clock()
        try:
            answers = self._answers(made_up.row(rows, index))
        except InferenceError as error:
            if not self.has_time(0):
                raise NoTimeError from error
            raise UnfitError from error
        took_s = self.clock() - began
        # The quickest run of these lengths: what a busy machine adds would make large batches look unaffordable.
        self._row_s = took_s if self._is_new else min(self._row_s, took_s)  # guard: rows-quickest
        self._is_new = False
        if took_s > self.budget_s:
            raise NoTimeError
        _check_rows(answers, 1)
        return answers

    def together(self, rows: Rows) -> Arrays:
        """The answers to a batch of rows that the model runs with alone.

        Raises:
            MixedError: it fails, or answers another number of rows.
            UnfitError: it takes too long.
            DeviceLostError: the device failed.
            DeviceOutOfMemoryError, OutOfMemoryError: the batch is too large.
        """
        try:
            answers = self._answers(rows)
        except (DeviceLostError, DeviceOutOfMemoryError, OutOfMemoryError):
            raise
        except RunTooLongError as error:
            raise UnfitError from error
        except InferenceError as error:
            raise MixedError(f"it fails with {count_rows(rows)} rows that it answers alone: {error}") from error
        _check_rows(answers, count_rows(rows))
        return answers

    def rounding(self, rows: Rows, alone: Sequence[Arrays], groups: Sequence[int]) -> Rounding:
        """What rounding may change in the answers to rows.

        Args:
            rows: that are compared.
            alone: the answer to each of them.
            groups: the rows whose answers have one scale, by row.
        """
        return Rounding(
            alone,
            groups,
            precision=self.precision,
            batch=lambda: self._answers(rows),
            nudged=lambda: self._nudged(rows),
        )

    def require_like_alone(
        self, batch: Arrays, alone: Sequence[Arrays], order: Sequence[int], rounding: Rounding
    ) -> None:
        """See that each row of a batch is answered as it is alone; rounding is allowed for, as kernels may differ.

        Args:
            batch: the answers to the batch.
            alone: the answers to rows by themselves.
            order: which of those rows the batch has, by place.
            rounding: of those rows.

        Raises:
            MixedError: a row is not.
        """
        for name, answers in batch.items():
            for place, row in enumerate(order):
                single = alone[row][name]
                if answers.shape[1:] != single.shape[1:]:
                    raise MixedError(
                        f"a row of output {name!r} has shape {list(answers.shape[1:])} in a batch of {len(answers)}, "
                        f"and {list(single.shape[1:])} alone"
                    )
                if rounding.differs(name, row, answers[place : place + 1], single):  # guard: rows-alone
                    raise MixedError(
                        f"row {place} of output {name!r} is answered differently alone and in a batch of {len(answers)}"
                    )

    def require_unmoved(
        self,
        rows: Rows,
        batch: Arrays,
        others: Rows,
        keep: Sequence[Sequence[int]],
        rounding: Rounding,
    ) -> bool:
        """See that rows which keep their places have the answers they had, while all others are exchanged.

        Shapes are the same, so the arithmetic is, to the last bit.

        Args:
            rows: of the batch.
            batch: the answers to it.
            others: as many rows, to exchange for.
            keep: the places that are kept, each time.
            rounding: of the batch's rows, by place.

        Returns:
            Whether the model took the others each time: where it did not, nothing was shown.

        Raises:
            MixedError: an answer changed.
            UnfitError: the model answers the very same batch differently each time.
        """
        was_shown = True
        for kept in keep:
            try:
                changed = self._answers(made_up.exchange(rows, others, kept))
            except RunTooLongError:  # as it would beside the other rows
                return False  # guard: rows-too-long-once
            except InferenceError:
                was_shown = False
                continue
            for name, answers in batch.items():
                if changed[name].shape != answers.shape:
                    raise MixedError(f"the shape of output {name!r} changes with the values of other rows")
                if same(answers[list(kept)], changed[name][list(kept)]):
                    continue
                for place in kept:
                    one = slice(place, place + 1)  # the row of a tensor [N] is no array
                    moved = rounding.moved(name, place, answers[one], changed[name][one])
                    if moved and not self._wavers(rows, name, place):  # guard: rows-others-exchanged
                        raise MixedError(
                            f"row {place} of output {name!r} changes with the other rows of its batch of "
                            f"{count_rows(rows)}"
                        )
        return was_shown

    def require_one_first_axis(self, rows: Rows) -> None:
        """Where names do not say that inputs share their first axis, see that the model refuses different lengths.

        Raises:
            MixedError: it takes them.
        """
        names = {spec.axis_name(0) for spec in self.signature.inputs}
        if len(self.signature.inputs) == 1 or (len(names) == 1 and None not in names):
            return
        for spec in self.signature.inputs[1:]:
            uneven = {**rows, spec.name: rows[spec.name][:-1]}
            try:
                self.run(uneven)
            except RunTooLongError:
                pass  # it was not refused
            except InferenceError:
                continue
            raise MixedError(
                f"input {spec.name!r} may have another first length than {self.signature.inputs[0].name!r}"
            )

    def _wavers(self, rows: Rows, name: str, place: int) -> bool:
        """Whether the very same batch is answered differently each time: then nothing can be told.

        Raises:
            UnfitError: it is.
        """
        first, second = self._answers(rows), self._answers(rows)
        if differ(first[name][place : place + 1], second[name][place : place + 1], 0.0):
            self.wavers = True
            raise UnfitError
        return False

    def _answers(self, rows: Rows) -> Arrays:
        return {name: readable(array) for name, array in self.run(rows).items()}

    def _nudged(self, rows: Rows) -> Arrays:
        try:
            return self._answers(made_up.nudged(rows))
        except InferenceError:
            return self._answers(rows)  # they do not suit the model, so nothing can be told from them


def _check_rows(answers: Arrays, count: int) -> None:
    for name, array in answers.items():
        if array.shape[:1] != (count,):
            raise MixedError(f"output {name!r} has shape {list(array.shape)} for {count} rows")
