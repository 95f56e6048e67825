"""When the requests of an open loop leave: decided beforehand, whatever the server does."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_REQUESTS = 20_000_000  # of one test; their records stay in memory


@dataclass(frozen=True)
class Load:
    """What is offered to a server.

    Attributes:
        rates: requests a second, one after the other, each for an equal part of the time: one is
            steady, several are steps or a spike.
        duration_s: altogether.
        poisson: independent callers, whose requests come at random; else at equal distances.
        seed: of what is random; the same one gives the same schedule.
    """

    rates: tuple[float, ...]
    duration_s: float
    poisson: bool = True
    seed: int = 0

    @property
    def requests(self) -> float:
        """How many there will be, about."""
        return sum(self.rates) * self.duration_s / len(self.rates)


def schedule(load: Load) -> NDArray[np.float64]:
    """The times of all requests in seconds from the start, ascending."""
    generator = np.random.default_rng(load.seed)
    each_s = load.duration_s / len(load.rates)
    parts = [start * each_s + _times(rate, each_s, load.poisson, generator) for start, rate in enumerate(load.rates)]
    return np.concatenate(parts)


def _times(rate: float, duration_s: float, poisson: bool, generator: np.random.Generator) -> NDArray[np.float64]:
    if not poisson:
        return np.arange(round(rate * duration_s)) / rate
    # Given their number, the arrivals of a Poisson process are independent and uniform.
    return np.sort(generator.uniform(0, duration_s, generator.poisson(rate * duration_s)))
