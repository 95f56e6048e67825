"""Plays the transport below a call: what each attempt comes to is scripted, and time is made up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from inferry_client.calling.calls import Pause, Probe, Send, Session, Steps
from inferry_client.errors import (
    DeadlineExceededError,
    InferryError,
    OverloadedError,
    ServerUnavailableError,
)
from inferry_client.messages.call import Call
from inferry_client.retries import DEFAULT_RETRIES, RetryPolicy

Result = TypeVar("Result")

REFUSED_S = 0.001
"""What an attempt takes that a server or the network refuses at once."""


def away() -> ServerUnavailableError:
    """Nobody listens at the address."""
    error = ServerUnavailableError("no server answers")
    error.unreached = True
    return error


def full(retry_after_s: float | None = None) -> OverloadedError:
    error = OverloadedError("the queue is full")
    error.retry_after_s = retry_after_s
    return error


@dataclass
class Silence:
    """An attempt that gets no word until its time is up."""


@dataclass
class Transport:
    """Carries out steps. `answer` says what an attempt comes to: a reply, an error, or Silence.

    Attributes:
        sent: every attempt, with the time it was made at.
        probed: every probe.
    """

    answer: Callable[[Send, float], Any]
    servers: int = 1
    retries: RetryPolicy = DEFAULT_RETRIES
    timeout_s: float = 10.0
    now: float = 0.0
    probe: Callable[[int, float], bool] = lambda *_: False
    sent: list[tuple[float, Send]] = field(default_factory=list)
    probed: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = tuple(f"host{number}:8001" for number in range(self.servers))
        self.session = Session(names, timeout_s=self.timeout_s, retries=self.retries, clock=lambda: self.now)

    def make(self, call: Call[Result]) -> Result:
        """The result of a call, made as clients do; raises what it raises."""
        first = self.session.first(call)
        if first is None:
            return self.carry_out(self.session.perform(call))
        try:
            reply = self._take(first)
        except InferryError as error:
            others: Steps[Result] = self.session.after(first, error)
        else:
            result: Result = self.session.answered(first, reply)
            return result
        return self.carry_out(others)

    def carry_out(self, steps: Steps[Result]) -> Result:
        """The result of a call; raises what it raises."""
        try:
            step = next(steps)
            while True:
                try:
                    came = self._take(step)
                except InferryError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(came)
        except StopIteration as end:
            result: Result = end.value
            return result

    def _take(self, step: Any) -> Any:
        if isinstance(step, Pause):
            self.now += step.seconds
            return None
        if isinstance(step, Probe):
            self.probed.append((self.now, step.server))
            self.session.probed(step.server, serving=self.probe(step.server, self.now))
            return None
        self.sent.append((self.now, step))
        came = self.answer(step, self.now)
        if isinstance(came, Silence):
            self.now += step.timeout_s
            late = DeadlineExceededError("no answer within the timeout")
            late.silent = True
            raise late
        self.now += REFUSED_S
        if isinstance(came, InferryError):
            raise came
        return came
