"""Several runs of a model at the same time, each on one core, where more rows wait than one run may have."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from inferry_proto.datatypes import Arrays
from inferry_server.runtime.instance import Instance
from inferry_server.runtime.session import OnnxSession


class ParallelInstance:
    """A model on the CPU that computes a large batch in parts, one on each core.

    Cores that compute one run together wait for one another at every operator; cores with a run each wait once,
    at the end. What one run may have is computed by all cores together all the same: it is answered sooner.
    Any thread may call `run`.

    Args:
        whole: computes one run on all cores.
        single: the same model on one core; any number of threads may run it at the same time.
        runs: rows of a batch to those of each run; one run where it may have them all.
        threads: runs at the same time.
    """

    batch_limit = None

    def __init__(
        self, whole: Instance, single: OnnxSession, runs: Callable[[int], Sequence[int]], *, threads: int
    ) -> None:
        self._whole = whole
        self._single = single
        self._runs = runs
        self._others = ThreadPoolExecutor(threads - 1, thread_name_prefix="parallel-run")

    def prepare(self) -> None:
        """As for one run."""
        self._whole.prepare()

    def run(self, inputs: Arrays) -> Arrays:
        """Compute a batch; the calling thread computes the first part of it.

        Args:
            inputs: by name, N rows each.

        Returns:
            Outputs by name, N rows each; arrays of their own.

        Raises:
            InferenceError: the model failed on these inputs.
        """
        parts = self._runs(len(next(iter(inputs.values()))))
        if len(parts) == 1:
            return self._whole.run(inputs)
        stops = list(itertools.accumulate(parts))
        cut = [
            {name: array[stop - rows : stop] for name, array in inputs.items()}
            for rows, stop in zip(parts, stops, strict=True)
        ]
        others = [self._others.submit(self._single.run, part) for part in cut[1:]]
        try:
            first = self._single.run(cut[0])
        finally:
            # they read the inputs
            wait(others)  # guard: parallel-runs-no
        computed = [first, *(other.result() for other in others)]
        return {name: np.concatenate([outputs[name] for outputs in computed]) for name in first}

    def run_whole(self, inputs: Arrays) -> Arrays:
        """Compute inputs as they are, in one run. Raises as `run` does."""
        return self._whole.run_whole(inputs)

    def interrupter(self) -> Callable[[], None]:
        """What ends the runs that are under way now; later ones go on."""
        ends = self._whole.interrupter(), self._single.interrupter()

        def end() -> None:
            for one in ends:
                one()

        return end

    def close(self) -> None:
        """End its threads. The sessions go with their last user."""
        self._others.shutdown()
        self._whole.close()
