"""Who computes the next batch of a model: one holder at a time, and a table of what changes it. Pure.

A model with one instance on the CPU has two threads that may compute: the instance's own, and the thread that reads
requests, which computes *inline*, between two events. The rules:

- The reading thread is offered a batch only of requests that it may compute: due, short, and none of them failed.
- Nobody takes a batch that is offered or computed by the other thread. The instance's thread sleeps meanwhile.
- What is offered and not begun within a few milliseconds is computed by the instance's thread.
- While the instance's thread computes, the reading thread may ask for the batch after that: else the instance's thread
  would go on as long as there is always a next batch, and one stall of the machine would end inline batches for as long
  as the load lasts. Measured without it (docs/decisions.md): a twelfth of the inline batches, and a fifth more CPU.
- Where another model has the cores when the reading thread comes, the instance's thread waits for them, and computes
  until nothing is due: the reading thread does not ask meanwhile.
- What the reading thread leaves is the instance's thread's, or nobody's if nothing waits.

Batches of a model with several instances, or on a GPU, are never offered inline: only the rows NOBODY and THREAD of the
table are used for it.
"""

from collections.abc import Mapping
from enum import StrEnum


class Holder(StrEnum):
    """Who has the next batch."""

    NOBODY = "nobody"
    OFFERED = "offered inline"
    INLINE = "computing inline"
    THREAD = "computing on its thread"
    ASKED = "computing on its thread, the next one asked for"
    WITHOUT_CORES = "computing on its thread until nothing is due"


class Event(StrEnum):
    """What happened, and on which thread."""

    READ = "the reading thread queued a request, and may compute what is due"
    BEGUN = "the reading thread took the batch that it was offered"
    MORE = "the reading thread is done, and may compute what is due now"
    LEFT = "the reading thread leaves what waits, or finds nothing"
    NO_CORES = "the reading thread came, and another model has the cores"
    NOT_TAKEN = "the instance's thread waited for the reading thread, which did not come"
    FREE = "the instance's thread is free, and the reading thread may compute what is due"
    DUE = "the instance's thread is free, and it alone may compute what is due"
    IDLE = "the instance's thread is free, and nothing is due"


TRANSITIONS: Mapping[Holder, Mapping[Event, Holder]] = {
    Holder.NOBODY: {
        Event.READ: Holder.OFFERED,
        Event.FREE: Holder.THREAD,
        Event.DUE: Holder.THREAD,
        Event.IDLE: Holder.NOBODY,
    },
    Holder.OFFERED: {
        Event.BEGUN: Holder.INLINE,
        Event.LEFT: Holder.NOBODY,
        Event.NO_CORES: Holder.WITHOUT_CORES,
        Event.NOT_TAKEN: Holder.THREAD,
    },
    Holder.INLINE: {
        Event.MORE: Holder.OFFERED,
        Event.LEFT: Holder.NOBODY,
    },
    Holder.THREAD: {
        Event.READ: Holder.ASKED,
        Event.FREE: Holder.THREAD,
        Event.DUE: Holder.THREAD,
        Event.IDLE: Holder.NOBODY,
    },
    Holder.ASKED: {
        Event.READ: Holder.ASKED,
        Event.FREE: Holder.OFFERED,
        Event.DUE: Holder.ASKED,
        Event.IDLE: Holder.NOBODY,
    },
    Holder.WITHOUT_CORES: {
        Event.READ: Holder.WITHOUT_CORES,
        Event.FREE: Holder.WITHOUT_CORES,
        Event.DUE: Holder.WITHOUT_CORES,
        Event.IDLE: Holder.NOBODY,
    },
}
"""The holder after an event, by the holder before. An event that is missing does not happen to that holder."""

INLINE_HOLDERS = frozenset({Holder.OFFERED, Holder.INLINE})
"""While one of these has the batch, the instance's thread leaves it alone."""
