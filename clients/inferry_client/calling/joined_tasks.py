"""Joined requests of asyncio's tasks."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from inferry_client.calling.calls import Session
from inferry_client.calling.joining import Batching, Ended, Joiner, Waiting, alone, deliver, fail, join, split
from inferry_client.errors import InferryError, error_from_other_loop, error_from_silence
from inferry_client.messages.call import Call


class TaskJoiner:
    """Carries out joined calls; each joined request is a task. All of it runs on one event loop.

    A call waits for its answer or for the alarm, which rings for all calls: a timer for each would cost as much
    as all else that is done for it.

    Args:
        settings: how to join.
        session: of the client.
        send: makes one call, now.
    """

    def __init__(self, settings: Batching, session: Session, send: Callable[[Call[Any]], Awaitable[Any]]) -> None:
        self._joiner = Joiner(settings)
        self._session = session
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()
        self._unanswered: set[Waiting] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self._looking = False
        self._loop = asyncio.get_running_loop()

    async def run(self, call: Call[Any]) -> Any:
        """The result of a call, whoever's request it travelled in."""
        joint = call.joint
        assert joint is not None  # noqa: S101 - its caller looked
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise error_from_other_loop(address=",".join(self._session.servers), asked=call.asked)
        timeout_s = self._session.timeout_s if call.timeout_s is None else call.timeout_s
        deadline = time.monotonic() + timeout_s - call.waited_s
        woken = loop.create_future()
        mine = Waiting(call, joint, timeout_s, deadline, woken)
        self._joiner.add(mine)
        self._unanswered.add(mine)
        if deadline < self._rings_at:
            self._set_alarm(deadline)
        if not self._looking:
            self._looking = True
            loop.call_soon(self._look)  # tasks that are ready now join too
        try:
            await woken
        finally:
            self._unanswered.discard(mine)
            if not mine.answered:
                self._joiner.remove(mine)
        if not mine.answered:
            raise error_from_silence(asked=call.asked, timeout_s=timeout_s)
        if mine.alone:
            return await self._send(alone(mine, time.monotonic()))
        if mine.error:
            raise mine.error
        return mine.result

    def _set_alarm(self, at: float) -> None:
        if self._alarm:
            self._alarm.cancel()
        self._rings_at = at
        self._alarm = None if at == math.inf else self._loop.call_later(at - time.monotonic(), self._ring)

    def _ring(self) -> None:
        """End the wait of calls whose time is up; the alarm rings again for the next ones, if there are any."""
        now, next_at = time.monotonic(), math.inf
        for waiting in self._unanswered:
            if waiting.deadline <= now:
                _wake([waiting])
            else:
                next_at = min(next_at, waiting.deadline)
        self._set_alarm(next_at)

    def _look(self) -> None:
        self._looking = False
        self._send_what_waits()

    def _send_what_waits(self) -> None:
        while self._joiner.reserve():
            batch = self._joiner.take(self._limit)
            task = asyncio.ensure_future(self._lead(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _lead(self, batch: list[Waiting]) -> None:
        began = time.monotonic()
        try:
            deliver(batch, split(batch, await self._send(join(batch, began))))
        except InferryError as error:
            fail(batch, error)
        except BaseException as error:
            fail(batch, InferryError(f"the joined request failed: {error}"))
            raise
        finally:
            _wake(batch)
            ended = time.monotonic()
            rows = sum([each.call.rows for each in batch])
            asyncio.get_running_loop().call_soon(self._hand_over, Ended(rows, ended - began, ended))

    def _hand_over(self, ended: Ended) -> None:
        """Give the place to the next request; the tasks that were woken have run, and those that asked again wait."""
        self._joiner.release(ended, now=time.monotonic())
        self._send_what_waits()

    def _limit(self, call: Call[Any]) -> int:
        return self._session.known_limit(call) or 1


def _wake(batch: Sequence[Waiting]) -> None:
    for each in batch:
        if not each.woken.done():
            each.woken.set_result(None)
