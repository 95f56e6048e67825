"""Who computes next: the table, cell by cell, and played against the flags that decided before there was a table."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_server.batching.ownership import INLINE_HOLDERS, TRANSITIONS, Event, Holder

NOBODY, OFFERED, INLINE = Holder.NOBODY, Holder.OFFERED, Holder.INLINE
THREAD, ASKED, WITHOUT_CORES = Holder.THREAD, Holder.ASKED, Holder.WITHOUT_CORES
READER = {Event.READ, Event.BEGUN, Event.MORE, Event.LEFT, Event.NO_CORES}
ROWS = """
                NOBODY   OFFERED        INLINE   THREAD   ASKED    WITHOUT_CORES
READ            OFFERED  -              -        ASKED    ASKED    WITHOUT_CORES
BEGUN           -        INLINE         -        -        -        -
MORE            -        -              OFFERED  -        -        -
LEFT            -        NOBODY         NOBODY   -        -        -
NO_CORES        -        WITHOUT_CORES  -        -        -        -
NOT_TAKEN       -        THREAD         -        -        -        -
FREE            THREAD   -              -        THREAD   OFFERED  WITHOUT_CORES
DUE             THREAD   -              -        THREAD   ASKED    WITHOUT_CORES
IDLE            NOBODY   -              -        NOBODY   NOBODY   NOBODY
"""


def cells() -> list[tuple[str, str, str]]:
    holders, *rows = [line.split() for line in ROWS.strip().splitlines()]
    return [(holder, row[0], after) for row in rows for holder, after in zip(holders, row[1:], strict=True)]


@pytest.mark.parametrize(("before", "event", "after"), cells())
def test_each_cell_of_the_table(before: str, event: str, after: str) -> None:
    found = TRANSITIONS[Holder[before]].get(Event[event])
    assert found == (None if after == "-" else Holder[after])


def test_every_holder_and_event_has_its_cells() -> None:
    assert {(holder, event) for holder, event, _ in cells()} == set(
        itertools.product(Holder.__members__, Event.__members__)
    )


def test_a_thread_of_the_instance_leaves_a_batch_alone_that_is_offered_or_computed_inline() -> None:
    for holder in INLINE_HOLDERS:
        assert TRANSITIONS[holder].keys() <= READER | {Event.NOT_TAKEN}


def test_every_holder_can_come_and_go() -> None:
    reached, before = {NOBODY}, set[Holder]()
    while reached != before:
        before = reached
        reached = reached | {after for holder in reached for after in TRANSITIONS[holder].values()}
    assert reached == set(Holder)
    assert all(set(cells.values()) - {holder} for holder, cells in TRANSITIONS.items())


@dataclass
class World:
    """What both ways of deciding see: rows that wait, whether batches are short, whether another has the cores."""

    rows: int = 0
    is_short: bool = True
    cores_taken: bool = False
    closing: bool = False
    failed: int = 0
    offered: int = 0  # pieces of inline work that the reading thread has not looked at
    log: list[str] = field(default_factory=list)

    def take(self) -> None:
        """The instance's thread takes what there is."""
        if self.failed:
            self.failed -= 1
            self.log.append("thread runs members of a failed batch")
        elif self.rows:
            self.rows = 0
            self.log.append("thread computes")


class Way(Protocol):
    """A way of deciding; each method is one step under the queue's lock, and logs what comes of it."""

    world: World

    def submit(self, *, here: bool) -> None: ...
    def thread_looks(self, *, timed_out: bool) -> None: ...
    def reader_comes(self) -> None: ...
    def reader_is_done(self, *, fails: bool) -> None: ...
    def state(self) -> str: ...


class Flags:
    """Five flags, as `RequestQueue` had them before the table.

    Where a comment says so, a flag is forgotten earlier: it outlived what it was for.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.kept = self.begun = self.served = self.wanted = self.device_taken = False

    def submit(self, *, here: bool) -> None:
        self.world.rows += 1
        if not self.kept and not self.keep(here=here):
            self.world.log.append("thread woken")

    def keep(self, *, here: bool = True) -> bool:
        world = self.world
        if world.failed or not here or not world.is_short or not world.rows:
            return False
        if self.served:
            self.wanted = True
            return False
        if self.device_taken:  # not offered again before the thread that was woken has come
            return False
        world.offered += 1
        self.kept, self.wanted = True, False  # what was asked for is there
        return True

    def can_invite(self) -> bool:
        return self.wanted and not self.world.closing and not self.device_taken and self.world.is_short

    def thread_looks(self, *, timed_out: bool) -> None:
        world = self.world
        if self.kept:
            if timed_out and not self.begun:
                self.kept, self.served = False, True
                world.take()
            return
        self.served = False
        if world.failed or (world.rows and not self.can_invite()):
            self.served = True
            world.take()
            return
        if world.rows:
            self.kept, self.wanted = True, False
            world.offered += 1
        else:
            self.device_taken = False
            self.wanted = False  # there is no next batch

    def reader_comes(self) -> None:
        world = self.world
        if not world.offered or self.begun:
            return
        world.offered -= 1
        if not self.kept:
            world.log.append("reader finds nothing")
        elif not world.rows:
            self.let_go()
        elif world.is_short and not world.cores_taken:
            self.begun = True
            world.rows = 0
            world.log.append("reader computes")
        else:
            self.device_taken = world.is_short
            self.let_go()

    def reader_is_done(self, *, fails: bool) -> None:
        if not self.begun:
            return
        self.kept = self.begun = False
        self.world.failed += fails
        if not self.keep():
            self.let_go()

    def let_go(self) -> None:
        self.kept = self.begun = False
        self.world.log.append("thread woken" if self.world.failed or self.world.rows else "cores given back")

    def state(self) -> str:
        if self.kept:
            return INLINE if self.begun else OFFERED
        if self.device_taken:
            return WITHOUT_CORES
        if not self.served:
            return NOBODY
        return ASKED if self.wanted else THREAD


class Table:
    """The table, asked as `RequestQueue` asks it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.holder = NOBODY

    def change(self, event: Event) -> Holder:
        self.holder = TRANSITIONS[self.holder][event]
        return self.holder

    def submit(self, *, here: bool) -> None:
        self.world.rows += 1
        if self.holder not in INLINE_HOLDERS and not self.offer(Event.READ, here=here):
            self.world.log.append("thread woken")

    def offer(self, event: Event, *, here: bool = True) -> bool:
        world = self.world
        if world.failed or not here or not world.is_short or not world.rows or self.change(event) is not OFFERED:
            return False
        world.offered += 1
        return True

    def thread_looks(self, *, timed_out: bool) -> None:
        world = self.world
        if self.holder in INLINE_HOLDERS:
            if timed_out and self.holder is OFFERED:
                self.change(Event.NOT_TAKEN)
                world.take()
            return
        alone = world.failed or world.closing or not world.is_short
        event = Event.IDLE if not (world.rows or world.failed) else Event.DUE if alone else Event.FREE
        if self.change(event) is OFFERED:
            world.offered += 1
        elif self.holder is not NOBODY:
            world.take()

    def reader_comes(self) -> None:
        world = self.world
        if not world.offered or self.holder is INLINE:
            return
        world.offered -= 1
        if self.holder is not OFFERED:
            world.log.append("reader finds nothing")
        elif world.rows and world.is_short and not world.cores_taken:
            self.change(Event.BEGUN)
            world.rows = 0
            world.log.append("reader computes")
        else:
            self.leave(Event.NO_CORES if world.rows and world.is_short else Event.LEFT)

    def reader_is_done(self, *, fails: bool) -> None:
        if self.holder is not INLINE:
            return
        self.world.failed += fails
        if not self.offer(Event.MORE):
            self.leave(Event.LEFT)

    def leave(self, event: Event) -> None:
        self.change(event)
        self.world.log.append("thread woken" if self.world.failed or self.world.rows else "cores given back")

    def state(self) -> str:
        return self.holder


def cancel(way: Way) -> None:
    way.world.rows = max(0, way.world.rows - 1)


def close(way: Way) -> None:
    way.world.closing = True


def flip_short(way: Way) -> None:
    way.world.is_short = not way.world.is_short


def flip_cores(way: Way) -> None:
    way.world.cores_taken = not way.world.cores_taken


STEPS: dict[str, Callable[[Way], None]] = {
    "the reading thread submits": lambda way: way.submit(here=True),
    "another thread submits": lambda way: way.submit(here=False),
    "the instance's thread looks": lambda way: way.thread_looks(timed_out=False),
    "the instance's thread has waited long": lambda way: way.thread_looks(timed_out=True),
    "the reading thread has no event": lambda way: way.reader_comes(),
    "the inline batch is done": lambda way: way.reader_is_done(fails=False),
    "the inline batch has failed": lambda way: way.reader_is_done(fails=True),
    "a request is cancelled": cancel,
    "the queue closes": close,
    "batches become long, or short again": flip_short,
    "another model takes the cores, or gives them back": flip_cores,
}


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=40))
@settings(max_examples=500)
def test_the_table_decides_as_the_flags_did(steps: list[str]) -> None:
    flags, table = Flags(World()), Table(World())
    for number, step in enumerate(steps):
        for way in (flags, table):
            STEPS[step](way)
        assert flags.state() == table.state(), steps[: number + 1]
        assert flags.world == table.world, steps[: number + 1]


def test_the_table_decides_as_the_flags_did_in_every_state_of_a_small_world() -> None:
    seen = set[tuple[str, bool, bool, bool, int, int, int]]()
    todo: list[tuple[str, ...]] = [()]
    while todo:
        steps = todo.pop()
        flags, table = Flags(World()), Table(World())
        for step in steps:
            for way in (flags, table):
                STEPS[step](way)
        assert flags.state() == table.state(), steps
        assert flags.world == table.world, steps
        world = table.world
        key = (
            table.state(), world.is_short, world.cores_taken, world.closing,
            min(world.rows, 2), min(world.failed, 2), min(world.offered, 2),
        )  # fmt: skip
        if key not in seen:
            seen.add(key)
            todo.extend((*steps, step) for step in STEPS)
    assert {state for state, *_ in seen} == set(Holder)
