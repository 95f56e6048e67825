"""Several runs of a model at the same time, one core each, where more rows wait than one run may have."""

import itertools
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np

from inferry_proto.datatypes import Arrays
from inferry_server.runtime.instance import Instance
from inferry_server.runtime.session import OnnxSession

_Computed = tuple[int, list[Arrays] | BaseException]  # which part of a batch, and its outputs


class ParallelInstance:
    """An instance around one on the CPU, which computes a batch too large for one run in several runs, one a core.

    To its caller, it is an instance that takes larger batches. Cores that compute one run together wait for one
    another at every operator; cores with a run each wait once, at the end. A batch that fits into one run is still
    computed by all cores together, because its replies come sooner then. Any thread may call `run`.

    Args:
        whole: computes one run on all cores.
        single: the same model on one core; any number of threads may run it at the same time.
        run_rows: rows that one run may have.
        parallel_runs: runs at the same time, two at least.
        runs_each: full runs that a core computes of the largest batch, one after the other: where they are short,
            cores meet once for several of them.

    Attributes:
        parallel_runs: how many runs compute at the same time.
        runs_each: how many full runs a core computes of the largest batch.
        single: as it was given.
    """

    batch_limit = staging = None

    def __init__(
        self, whole: Instance, single: OnnxSession, *, run_rows: int, parallel_runs: int, runs_each: int = 1
    ) -> None:
        self._whole = whole
        self.single = single
        self._run_rows = run_rows
        self.parallel_runs = parallel_runs
        self.runs_each = runs_each
        # not futures: a short batch would spend a fifth of the server's Python on their locks
        self._tasks: SimpleQueue[tuple[int, Sequence[Arrays], SimpleQueue[_Computed]] | None] = SimpleQueue()
        self._others = [
            threading.Thread(target=self._serve, name=f"parallel-run-{number}", daemon=True)
            for number in range(1, parallel_runs)
        ]
        for thread in self._others:
            thread.start()

    @property
    def most_rows(self) -> int:
        """Rows of the largest batch, whose runs are all full."""
        return self._run_rows * self.parallel_runs * self.runs_each

    def run_sizes(self, rows: int) -> Sequence[int]:
        """The rows of each run of a batch, first those of the first core's runs, then those of the next.

        All cores have equally many runs, and no more than needed. Runs differ by one row at most, and none is empty.
        """
        if rows <= self._run_rows:  # guard: parallel-runs-no-run
            return (rows,)
        each = -(-rows // (self._run_rows * self.parallel_runs))  # guard: parallel-runs-each
        count = min(rows, each * self.parallel_runs)  # guard: parallel-runs-none
        least, more = divmod(rows, count)
        return (least + 1,) * more + (least,) * (count - more)

    def prepare(self) -> None:
        """Prepare the instance that is wrapped."""
        self._whole.prepare()

    def run(self, inputs: Arrays) -> Arrays:
        """Compute a batch; the calling thread computes the first runs of it.

        Args:
            inputs: by name, N rows each, at most `most_rows`.

        Returns:
            Outputs by name, N rows each; arrays of their own.

        Raises:
            InferenceError: the model failed on these inputs.
        """
        sizes = self.run_sizes(len(next(iter(inputs.values()))))
        if len(sizes) == 1 or not self._others:  # guard: parallel-runs-closed
            return self._whole.run(inputs)
        stops = itertools.accumulate(sizes)
        cut = [
            {name: array[stop - rows : stop] for name, array in inputs.items()}
            for rows, stop in zip(sizes, stops, strict=True)
        ]
        each = -(-len(cut) // self.parallel_runs)
        later = range(each, len(cut), each)
        done: SimpleQueue[_Computed] = SimpleQueue()
        for at in later:
            self._tasks.put((at, cut[at : at + each], done))
        try:
            computed = self._run_all(cut[:each])
        except BaseException:
            for _ in later:  # the other threads read the inputs until then
                done.get()  # guard: parallel-runs-no
            raise
        others = dict(done.get() for _ in later)
        for at in later:
            outputs = others[at]
            if isinstance(outputs, BaseException):
                raise outputs
            computed += outputs
        return {name: np.concatenate([outputs[name] for outputs in computed]) for name in computed[0]}

    def _run_all(self, parts: Sequence[Arrays]) -> list[Arrays]:
        return [self.single.run(part) for part in parts]

    def _serve(self) -> None:
        """Compute parts of batches until there is none to come."""
        while (task := self._tasks.get()) is not None:
            at, parts, done = task
            try:
                done.put((at, self._run_all(parts)))
            except BaseException as error:  # noqa: BLE001 - it is raised where the batch is computed
                done.put((at, error))
            del task, parts, done  # no batch may stay in memory until the next one

    def run_whole(self, inputs: Arrays) -> Arrays:
        """Compute inputs as they are, in one run. Raises as `run` does."""
        return self._whole.run_whole(inputs)

    def interrupter(self) -> Callable[[], None]:
        """A function that ends the runs that are under way now; later runs go on."""
        ends = self._whole.interrupter(), self.single.interrupter()

        def end() -> None:
            for one in ends:
                one()

        return end

    def give_up(self) -> None:
        """End its threads and give back the model on one core. The instance that it is around goes on without it."""
        self._end_threads()
        self.single.close()

    def close(self) -> None:
        """End its threads, and close the instance that is wrapped."""
        self._end_threads()
        self._whole.close()

    def _end_threads(self) -> None:
        for _ in self._others:
            self._tasks.put(None)
        for thread in self._others:
            thread.join()
        self._others.clear()
