"""One request in the queue: its inputs, deadline and reply; and how rows become batches, and outputs replies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server.batching.latency import ShapeKey
from inferry_server.batching.policy import INTERACTIVE, Lane
from inferry_server.errors import InferenceError, RowCountError
from inferry_server.signature import Staging
from inferry_server.trace import RequestTrace

PadTo = Callable[[int], int]  # rows of a batch to the rows it runs with


class Timing:
    """Where a request's time went, in seconds.

    Attributes:
        queue_s: from admission to the start of its first batch.
        assembly_s: putting its batches together.
        compute_s: in ONNX Runtime, of all its batches.
    """

    __slots__ = ("assembly_s", "compute_s", "queue_s")

    def __init__(self, queue_s: float, assembly_s: float, compute_s: float) -> None:
        self.queue_s = queue_s
        self.assembly_s = assembly_s
        self.compute_s = compute_s


class Reply(Protocol):
    """How a request gets its outcome: one of the two is called, once, by the thread that computes batches."""

    def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
        """Make the reply from the outputs of this request's rows.

        The outputs may be views into those of the batch: read them, and do not keep them.

        Returns:
            A function that sends the reply. It is called when the request has been counted, so that a
            caller who has the reply finds the request in the statistics.
        """
        ...

    def fail(self, error: Exception) -> None:
        """The request was not, or could not be, computed."""


class InputsForm(NamedTuple):
    """What the inputs of requests have in common that differ in the values of their elements alone.

    Attributes:
        nbytes: bytes of all inputs, texts with all their characters.
        item_shapes: of the inputs, without N: only requests that agree in them can share a batch.
        shape_key: requests that have the same take as long for each row. Texts of up to twice as many characters do.
    """

    nbytes: int
    item_shapes: tuple[tuple[int, ...], ...]
    shape_key: ShapeKey


def form_of(inputs: Arrays, rows: int) -> InputsForm:
    """The form of the inputs of so many rows."""
    nbytes = characters = 0
    item_shapes: tuple[tuple[int, ...], ...] = ()
    for array in inputs.values():
        nbytes += array.nbytes
        item_shapes += (array.shape[1:],)
        if array.dtype.hasobject:  # whose own bytes are pointers to its texts
            characters += sum(map(len, array.flat))  # guard: room-texts-counted
    nbytes += characters
    row_bytes = nbytes // (rows or 1)
    return InputsForm(nbytes, item_shapes, (item_shapes, 1 << row_bytes.bit_length() if characters else row_bytes))


class InferenceRequest:
    """One request in the queue, and how far it has come.

    Args:
        form: of the inputs, where it is known; else it is found.

    Attributes:
        inputs: by name; all begin with `rows` where the model is batched.
        rows: items; 1 where the model is not batched.
        reply: told of the outcome.
        deadline: on the monotonic clock, in seconds; None for no deadline.
        lane: the queue in which it waits.
        trace: its trace, where it is sampled.
        request_id: as the client chose it.
        arrived_at: when it came, on the monotonic clock; 0: when it is admitted.
        degraded_from: the version that it was meant for, as MODEL/VERSION, where a variant of that computes it; else
            empty.
        nbytes: as `InputsForm`.
        item_shapes: as `InputsForm`.
        shape_key: as `InputsForm`.
        is_coalesced: it is several requests of clients (`coalesced.py`); it is refused where one may be a probe.
        is_probe: computed though a prediction speaks against it; only its deadline, once past, refuses it.
        enqueued_at: when it was admitted.
        rows_ahead: rows that waited in its lane then.
        waiting_rows: not handed out to a batch yet.
        settled: it has its reply, failed or was cancelled: nothing more happens to it.
    """

    __slots__ = (
        "_assembly_s", "_compute_s", "_computed_rows", "_joined", "_queue_s", "arrived_at", "deadline", "degraded_from",
        "enqueued_at", "inputs", "is_coalesced", "is_probe", "item_shapes", "lane", "nbytes", "reply", "request_id",
        "rows", "rows_ahead", "settled", "shape_key", "trace", "waiting_rows",
    )  # fmt: skip

    def __init__(
        self,
        inputs: Arrays,
        rows: int,
        reply: Reply,
        deadline: float | None = None,
        lane: Lane = INTERACTIVE,
        trace: RequestTrace | None = None,
        request_id: str = "",
        arrived_at: float = 0.0,
        form: InputsForm | None = None,
        *,
        degraded_from: str = "",
    ) -> None:
        self.inputs = inputs
        self.rows = self.waiting_rows = rows
        self.reply = reply
        self.deadline = deadline
        self.lane = lane
        self.trace = trace
        self.request_id = request_id
        self.arrived_at = arrived_at
        self.degraded_from = degraded_from
        self.nbytes, self.item_shapes, self.shape_key = form or form_of(inputs, rows)
        self.is_probe = self.settled = False
        self.is_coalesced = False
        self.enqueued_at = 0.0
        self.rows_ahead = self._computed_rows = 0
        self._queue_s: float | None = None
        self._assembly_s = self._compute_s = 0.0
        self._joined: dict[str, NDArray[Any]] | None = None

    @property
    def queued(self) -> "InferenceRequest":
        """This request: it is decoded, and can be queued."""
        return self

    def late_by_s(self, done_at: float) -> float | None:
        """How late a reply at `done_at` would be, or None if it is in time."""
        if self.deadline is None or done_at <= self.deadline:
            return None
        return done_at - self.deadline

    def started(self, now: float) -> None:
        """Its first rows are about to be computed."""
        if self._queue_s is None:
            self._queue_s = now - self.enqueued_at
            if self.trace is not None:
                self.trace.taken_at = now

    def collect(
        self, start: int, outputs: Arrays, rows: int, *, assembly_s: float, compute_s: float
    ) -> tuple[Arrays, Timing] | None:
        """Take in the outputs of some rows.

        Returns:
            All outputs once every row has come, and where the time of the request went; None before.

        Raises:
            InferenceError: the parts do not fit together.
        """
        self._assembly_s += assembly_s
        self._compute_s += compute_s
        self._computed_rows += rows
        if rows == self.rows or not outputs:
            return outputs, Timing(self._queue_s or 0.0, self._assembly_s, self._compute_s)
        if self._joined is None:
            self._joined = {name: np.empty((self.rows, *a.shape[1:]), a.dtype) for name, a in outputs.items()}
        for name, array in outputs.items():
            if array.shape[1:] != self._joined[name].shape[1:]:
                raise InferenceError(
                    f"output {name!r} has rows of shape {list(array.shape[1:])} and of "
                    f"{list(self._joined[name].shape[1:])} in the parts of one request; "
                    "send no more than a batch at once"
                )
            self._joined[name][start : start + rows] = array  # guard: outputs-parts-joined
        if self._computed_rows < self.rows:  # guard: replies-not-before
            return None
        return self._joined, self.timing

    @property
    def timing(self) -> Timing:
        """Where its time went so far."""
        return Timing(self._queue_s or 0.0, self._assembly_s, self._compute_s)


@dataclass(frozen=True)
class DeadlinePolicy:
    """Which deadline a request has.

    Attributes:
        objective_s: the deadline of requests that carry none; None: they have none.
    """

    objective_s: float | None = None

    def deadline(
        self,
        arrived: float,
        *,
        call_deadline: float | None,
        timeout_s: float | None,
        model_objective_s: float | None = None,
    ) -> float | None:
        """The earliest of the call's own deadline and the request's timeout, else the objective.

        Args:
            arrived: when the request came, in monotonic seconds.
            call_deadline: gRPC's, on the same clock.
            timeout_s: the request's `timeout` parameter.
            model_objective_s: the model's own objective, which goes before the server's.
        """
        if timeout_s is not None:
            ends = arrived + timeout_s
            return ends if call_deadline is None else min(ends, call_deadline)  # guard: deadlines-earliest-counts
        if call_deadline is not None:
            return call_deadline
        objective_s = (
            self.objective_s if model_objective_s is None else model_objective_s
        )  # guard: deadlines-model-objective
        return None if objective_s is None else arrived + objective_s


class BatchSlice(NamedTuple):
    """Rows `start` to `start + rows` of a request, as part of a batch."""

    request: InferenceRequest
    start: int
    rows: int

    @property
    def inputs(self) -> Arrays:
        """Its rows of every input, as views."""
        if self.rows == self.request.rows:
            return self.request.inputs
        stop = self.start + self.rows
        return {name: array[self.start : stop] for name, array in self.request.inputs.items()}

    @property
    def is_whole(self) -> bool:
        """Whether it has all rows of its request."""
        return self.rows == self.request.rows


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


def assemble(slices: Sequence[BatchSlice], *, rows: int, padded: int, staging: Staging | None = None) -> Arrays:
    """The inputs of a batch, by name; without staging memory a lone request's own arrays, where nothing is padded.

    Padding repeats the last row: rows of zeros could be something the model fails on.

    Args:
        slices: the batch.
        rows: of all of them.
        padded: rows that it runs with.
        staging: where it is put together, if there is such memory; it is written over.
    """
    padding = padded - rows
    if staging is not None and (staged := staging(padded)) is not None:  # guard: cost-staged-batch
        for name, array in staged.items():
            _concatenate([part.inputs[name] for part in slices], padding, array)
        return staged
    if len(slices) == 1 and not padding:  # guard: cost-full-batch
        return aligned(slices[0].inputs)
    parts = [part.inputs for part in slices]
    return {name: _concatenate([part[name] for part in parts], padding) for name in parts[0]}


def aligned(inputs: Arrays) -> Arrays:
    """Inputs whose memory is aligned, as computing needs it; those that are not, views into messages, are copied."""
    for array in inputs.values():  # no generator: one costs more than what it would look at
        if not array.flags.aligned:
            return {name: each if each.flags.aligned else each.copy() for name, each in inputs.items()}
    return inputs


def scatter_outputs(slices: Sequence[BatchSlice], outputs: Arrays, padded: int) -> list[Arrays]:
    """The rows of every output that belong to each slice, as views; the rows of the padding are dropped.

    Args:
        slices: as they were assembled.
        outputs: of the whole batch.
        padded: rows that it ran with.

    Raises:
        RowCountError: as `check_rows`.
    """
    check_rows(outputs, padded)  # guard: outputs-row-each
    scattered: list[Arrays] = []
    start = 0
    for part in slices:
        stop = start + part.rows
        scattered.append({name: array[start:stop] for name, array in outputs.items()})  # guard: outputs-padding-goes
        start = stop
    return scattered


def check_rows(outputs: Arrays, rows: int) -> None:
    """Refuse outputs without a row for each row of the batch: no request may get the outputs of another.

    Raises:
        RowCountError: names the output, and the setting for a model without rows.
    """
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise RowCountError(
                f"the model answered {rows} rows with output {name!r} of shape {list(array.shape)}; expected a row "
                "for each. A model whose first axis counts no rows says so with max_batch_size: 0 in config.pbtxt"
            )


def _concatenate(arrays: list[NDArray[Any]], padding: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
    if padding:
        arrays = [*arrays, np.repeat(arrays[-1][-1:], padding, axis=0)]  # guard: outputs-padding-no
    return np.concatenate(arrays, out=out)
