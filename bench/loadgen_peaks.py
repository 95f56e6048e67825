"""Do two load generators find the same peak of a server? Their trials take turns, so that a busy machine meets both.

Both search in the same way (`PeakSearch`, as `inferry load --find-peak`), from the same rate, by trials of the same
length, and hold a rate by the same rule: p99 within the objective, from when each request was due, and none refused or
failed. A trial that was not held while other programs took a part of the cores is made again, whosever it was.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import psutil

from bench.processes import cpu_s
from inferry_client.load.payloads import Payloads
from inferry_client.load.peak import PeakSearch
from inferry_client.load.schedule import Load
from inferry_client.load.summary import Gates
from inferry_client.load.workers import OpenLoop

TRIAL_S = 5.0
_OTHERS = 0.1  # of a core; programs that take more made p99 twice as high, and more
_LATE_SHARE = 0.01  # of requests, which a p99 within the objective allows


@dataclass(frozen=True)
class Trial:
    """How a rate went.

    Attributes:
        held: by the server.
        disturbed: other programs took a part of the cores meanwhile.
    """

    held: bool
    disturbed: bool = False


Try: TypeAlias = Callable[[float, int], Trial]  # a rate, and a seed for when its requests come


class NoPeakError(Exception):
    """A search that ended without a rate that was held."""


def peaks_in_turns(ways: tuple[Try, Try], *, start: float) -> tuple[float, float]:
    """The highest rate by each of two ways; a trial of the one follows a trial of the other.

    Raises:
        NoPeakError: one of them found none.
    """
    searches = [PeakSearch(start=start) for _ in ways]
    going_on = True
    while going_on:
        going_on = False
        for search, way in zip(searches, ways, strict=True):
            if (rate := search.next_rate()) is not None:
                trial = way(rate, search.trials)
                search.note(rate, held=trial.held, spoilt=trial.disturbed)
                going_on = True
    first, second = (search.peak for search in searches)
    if first is None or second is None:
        raise NoPeakError(f"no rate was held twice by both ways; they found {first} and {second}")
    return first, second


def open_loop_holds(address: str, payloads: Payloads, *, objective_ms: float) -> Callable[[float, int], bool]:
    """How `inferry load --find-peak` tries a rate, with one process that sends."""
    loop, gates = OpenLoop(address, payloads, processes=1, objective_ms=objective_ms), Gates(objective_ms)

    def holds(rate: float, seed: int) -> bool:
        summary = loop.run(Load((rate,), TRIAL_S, seed=seed), lost_share=_LATE_SHARE)
        return not gates.broken(summary, client=False)

    return holds


def watched(holds: Callable[[float, int], bool], server: psutil.Process | None, say: Callable[[str], None]) -> Try:
    """Trials that know what other programs took of the cores; nobody knows that of a server elsewhere (None)."""

    def trial(rate: float, seed: int) -> Trial:
        others_s, began = _others_s(server), time.monotonic()
        held = holds(rate, seed)
        others = (_others_s(server) - others_s) / (time.monotonic() - began) if server else 0.0
        say(f"{rate:.0f}: {'held' if held else 'not held'}, others took {others:.2f} cores")
        return Trial(held, disturbed=others > _OTHERS)

    return trial


def _others_s(server: psutil.Process | None) -> float:
    """CPU seconds that neither the server nor this process and its children took; also those that the host took."""
    times, own = psutil.cpu_times(), os.times()
    busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return float(busy - sum(own[:4]) - (cpu_s(server) if server else 0.0))
