"""What a call does until it ends: attempts, pauses, other servers, smaller parts. Decides only.

A call is a generator of steps. The synchronous and the asynchronous client carry them out, each in
its way, and send back what came of them; both know nothing else. Time comes from a clock that is
given, so that tests drive calls through hours in no time.
"""

import random
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, final

from inferry_client.calling.balancing import Balancer
from inferry_client.errors import (
    CertificateError,
    DeadlineExceededError,
    InferryError,
    InvalidRequestError,
    ModelNotFoundError,
    ReplyError,
    ServerUnavailableError,
    UnsupportedError,
    error_from_reply,
)
from inferry_client.messages import questions
from inferry_client.messages.call import Call, Pieces
from inferry_client.retries import RetryBudget, RetryPolicy, may_repeat, plan_retry

Result = TypeVar("Result")

_FIRST_CONTACT_S = 2.5  # a client that has never reached a server: a wrong address shows within seconds
_SHORTEST_S = 0.001  # a call whose time is up gets that much, and says so itself
_SMALLER_MESSAGE = 0.9  # of what fits, since every part repeats names and shapes
_SIZES = re.compile(r"larger than max \((\d{1,15}) vs\. (\d{1,15})\)")


@final
@dataclass(slots=True)  # not frozen, which would cost every call a microsecond; nobody changes one
class Send:
    """Make one attempt; the reply message comes back, or an InferryError is raised.

    Attributes:
        call: what to send.
        server: its index.
        timeout_s: of this attempt.
        within_s: what the whole call was given, for messages.
        deadline: of the whole call, on the session's clock.
        wait: until there is a connection, instead of failing at once; spares asking again and again.
    """

    call: Call[Any]
    server: int
    timeout_s: float
    within_s: float
    deadline: float
    wait: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; nothing comes back."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask a server in the background whether it serves, and tell `Session.probed`."""

    server: int


Step: TypeAlias = Send | Pause | Probe
Steps: TypeAlias = Generator[Step, Any, Result]


class Session:
    """What the calls of one client share.

    Any thread may start calls; each generator belongs to who started it.

    Args:
        servers: their addresses.
        timeout_s: of calls that carry none.
        retries: when to ask again.
        clock: seconds that never go back.
    """

    def __init__(
        self, servers: tuple[str, ...], *, timeout_s: float, retries: RetryPolicy, clock: Callable[[], float]
    ) -> None:
        self.servers = servers
        self.timeout_s = timeout_s
        self._policy = retries
        self._clock = clock
        self._balancer = Balancer(len(servers))
        self._budget = RetryBudget(retries)
        self._reached = False
        self._retrying = 0
        self._limits: dict[tuple[str, str], int] = {}
        self._batch_limits: dict[tuple[str, str], int] = {}
        self._streamless: set[tuple[int, str]] = set()

    def begin_anew(self) -> None:
        """Know of no call that is under way."""
        self._retrying = 0

    def first(self, call: Call[Any]) -> Send | None:
        """The attempt that a call begins with; None: there is more to decide, which `perform` does.

        Nearly all calls are answered at their first attempt, and are spared a generator. Whoever makes the attempt
        goes on with `answered` or `after`.
        """
        if call.pieces is not None or self._balancer.suspects:
            return None
        timeout_s = self.timeout_s if call.timeout_s is None else call.timeout_s
        left_s = timeout_s - call.waited_s if call.waited_s else timeout_s
        if left_s < _SHORTEST_S:
            left_s = _SHORTEST_S
        return Send(call, self._balancer.pick(), left_s, timeout_s, self._clock() + timeout_s - call.waited_s)

    def answered(self, attempt: Send, reply: Any) -> Any:
        """The result of the call whose attempt was answered.

        Raises:
            ReplyError: the reply breaks the protocol.
        """
        self._reached = True
        if self._budget.spent:
            self._budget.answered()
        if self._balancer.suspects:
            self._balancer.answered(attempt.server)
        try:
            return attempt.call.read(reply)
        except ValueError as error:
            address = self.servers[attempt.server]
            raise error_from_reply(str(error), address=address, asked=attempt.call.asked) from error

    def perform(self, call: Call[Result]) -> Steps[Result]:
        """The steps of a call, in parts where its server takes less at a time.

        Raises:
            InferryError: it got no answer.
        """
        timeout_s, deadline = self.time_of(call)
        if call.pieces is None:
            return self._attempts(call, timeout_s, deadline)
        return self._whole_or_parts(call, timeout_s, deadline)

    def wait_until_ready(self, call: Call[bool], *, interval_s: float) -> Steps[None]:
        """Ask until the answer is yes.

        Raises:
            InferryError: it was not within the call's timeout; the last reason.
        """
        timeout_s, deadline = self.time_of(call)
        while True:
            problem: InferryError | None = None
            try:
                if (yield from self._attempts(call, timeout_s, deadline)):
                    return
            except ServerUnavailableError as error:
                problem = error
            if self._clock() + interval_s >= deadline:
                servers = ", ".join(self.servers)
                raise problem or DeadlineExceededError(
                    f"{servers} was not ready within {timeout_s:g} s; `inferry status --server {servers}` says why",
                    address=servers,
                    asked=call.asked,
                )
            yield Pause(interval_s)

    def known_limit(self, call: Call[Any]) -> int | None:
        """The most rows that a call's model takes in a request; 0: it takes no batches, None: not known yet."""
        return self._batch_limits.get(call.model)

    def learn_limit(self, call: Call[Any]) -> Steps[int]:
        """Ask for what `known_limit` says, within the call's time; a server that does not tell gets single calls."""
        model, version = key = call.model
        try:
            _, limit = yield from self._ask_limit(model, version, *self.time_of(call))
        except ModelNotFoundError:
            return 0  # it may be there later
        except (InvalidRequestError, UnsupportedError):
            limit = 0
        self._batch_limits[key] = limit
        return limit

    def time_of(self, call: Call[Any]) -> tuple[float, float]:
        """What a call may take in seconds, and its deadline if it begins now."""
        timeout_s = self.timeout_s if call.timeout_s is None else call.timeout_s
        return timeout_s, self._clock() + timeout_s - call.waited_s

    def left_of(self, deadline: float) -> float:
        """Seconds until a deadline; a little where it has passed, so that a call can say so itself."""
        return max(deadline - self._clock(), _SHORTEST_S)

    def waited_s(self, timeout_s: float, deadline: float) -> float:
        """How much of a timeout has passed, with a little left, so that a call can say so itself."""
        return max(0.0, timeout_s - self.left_of(deadline))

    def stream_server(self, path: str) -> int | None:
        """The server for a new stream of a bidirectional RPC; None: the one whose turn it is does not have it."""
        server = self._balancer.pick()
        return None if (server, path) in self._streamless else server

    def stream_answered(self, server: int) -> None:
        """A reply came on a stream."""
        self._reached = True
        self._budget.answered()
        self._balancer.answered(server)

    def stream_ended(self, server: int, path: str, error: InferryError) -> None:
        """A stream ended otherwise than by its client's wish."""
        if isinstance(error, (UnsupportedError, ReplyError)):
            self._streamless.add((server, path))
        else:
            self._note(error, server)

    def probed(self, server: int, *, serving: bool) -> None:
        """A probe ended."""
        self._balancer.probed(server, serving=serving, now=self._clock())

    def _whole_or_parts(self, call: Call[Result], timeout_s: float, deadline: float) -> Steps[Result]:
        pieces = call.pieces
        if pieces is None:
            return (yield from self._attempts(call, timeout_s, deadline))
        limit = self._limits.get((pieces.model, pieces.version))
        if limit is None or pieces.count <= limit:
            try:
                return (yield from self._attempts(call, timeout_s, deadline))
            except InvalidRequestError as error:
                version, limit = yield from self._limit_below(pieces, error, deadline)
                if limit is None:
                    raise
        else:
            version = pieces.version
        return (yield from self._parts(call, pieces, limit, version, timeout_s, deadline))

    def _parts(
        self, call: Call[Result], pieces: Pieces[Result], limit: int, version: str, timeout_s: float, deadline: float
    ) -> Steps[Result]:
        results: list[Result] = []
        for start in range(0, pieces.count, limit):
            stop = min(start + limit, pieces.count)
            part = pieces.cut(start, stop, version)
            try:
                result = yield from self._whole_or_parts(part, timeout_s, deadline)
            except InvalidRequestError as error:
                raise _within(error, start, stop) from error
            version = getattr(result, "version", version)  # guard: client-one-version
            results.append(result)
        try:
            return pieces.join(results)
        except (KeyError, ValueError) as error:
            raise error_from_reply(str(error), address=", ".join(self.servers), asked=call.asked) from error

    def _limit_below(
        self, pieces: Pieces[Any], error: InvalidRequestError, deadline: float
    ) -> Generator[Step, Any, tuple[str, int | None]]:
        """How many rows to send at a time instead, and the version that said so; None: cutting does not help."""
        sizes = _SIZES.search(error.details)
        if sizes:
            limit = int(pieces.count * int(sizes[2]) / int(sizes[1]) * _SMALLER_MESSAGE)
            version = pieces.version
        else:
            try:
                version, limit = yield from self._ask_limit(pieces.model, pieces.version, self.timeout_s, deadline)
            except InferryError:
                return pieces.version, None
        if not 1 <= limit < pieces.count:
            return pieces.version, None
        self._limits[(pieces.model, pieces.version)] = limit
        return version, limit

    def _ask_limit(
        self, model: str, version: str, timeout_s: float, deadline: float
    ) -> Generator[Step, Any, tuple[str, int]]:
        """The version that says how many rows it takes, and how many; 0: it takes no batches."""
        try:
            call = questions.describe_model(model, version=version)
            description = yield from self._attempts(call, timeout_s, deadline)
        except UnsupportedError:  # another server of the protocol
            asked = questions.model_limit(model, version=version)
            return version, (yield from self._attempts(asked, timeout_s, deadline))
        batched = all(spec.shape[:1] == (-1,) for spec in (*description.inputs, *description.outputs))
        return description.version, description.max_batch_size if batched else 0

    def _attempts(self, call: Call[Result], timeout_s: float, deadline: float) -> Steps[Result]:
        yield from self._probes()
        left_s = self.left_of(deadline)  # guard: client-parts-in-time
        attempt = Send(call, self._balancer.pick(), left_s, timeout_s, deadline)
        try:
            reply = yield attempt
        except InferryError as error:
            others: Steps[Result] = self.after(attempt, error)
        else:
            result: Result = self.answered(attempt, reply)
            return result
        return (yield from others)

    def after(self, attempt: Send, error: InferryError) -> Steps[Any]:
        """What follows the first attempt of a call where it failed: others, until one is answered.

        Raises:
            InferryError: no other may follow, or what the last one ended with.
        """
        number = 1
        tried: tuple[int, ...] = ()
        failed: InferryError | None = error
        away: ServerUnavailableError | None = None
        self._retrying += 1
        try:
            while failed:
                self._note(failed, attempt.server)
                if away and isinstance(failed, DeadlineExceededError) and failed.silent:
                    raise away from failed  # the last moments of waiting for a server that is away
                away = failed if isinstance(failed, ServerUnavailableError) else None
                tried = (*tried, attempt.server)
                pause_s = self._plan(failed, number, tried, attempt.deadline - attempt.within_s, attempt.deadline)
                if pause_s is None:
                    raise failed
                if pause_s:
                    yield Pause(pause_s)
                number += 1
                if not self._balancer.others(tried):
                    tried = ()
                yield from self._probes()
                attempt = self._again(attempt, tried, wait=away is not None and away.unreached)
                try:
                    reply = yield attempt
                    failed = None
                except InferryError as error_of_next:
                    failed = error_of_next
        finally:
            self._retrying -= 1
            del error, away, failed  # their tracebacks lead here
        return self.answered(attempt, reply)

    def _again(self, attempt: Send, tried: tuple[int, ...], *, wait: bool) -> Send:
        wait = wait and self._reached and len(self.servers) == 1
        left_s = self.left_of(attempt.deadline)
        return Send(attempt.call, self._balancer.pick(tried), left_s, attempt.within_s, attempt.deadline, wait)

    def _probes(self) -> Generator[Probe, Any, None]:
        if self._balancer.suspects:
            for suspect in self._balancer.due_probes(self._clock()):
                yield Probe(suspect)

    def _note(self, error: InferryError, server: int) -> None:
        """Learn from what an attempt ended with."""
        silent = isinstance(error, DeadlineExceededError) and error.silent
        unreached = isinstance(error, ServerUnavailableError) and error.unreached
        self._reached |= not (silent or unreached)
        if isinstance(error, ServerUnavailableError) or silent:  # guard: client-silence
            self._balancer.failed(server, self._clock())
        else:
            self._balancer.answered(server)

    def _plan(
        self, error: InferryError, attempt: int, tried: tuple[int, ...], started: float, deadline: float
    ) -> float | None:
        """The pause before the next attempt; None: the error is the call's."""
        now = self._clock()
        unreached = isinstance(error, ServerUnavailableError) and error.unreached
        if isinstance(error, CertificateError) and self._balancer.others(tried):
            return 0.0  # the others may have better ones
        if not may_repeat(error):
            return None
        pause_s = plan_retry(
            self._policy,
            error,
            attempt=attempt,
            spread=random.random(),  # noqa: S311
            remaining_s=deadline - now,
        )
        if pause_s is None or not self._budget.allows(error, retrying=self._retrying):
            return None
        if isinstance(error, ServerUnavailableError) and error.retry_after_s is None:
            ended = error.unseen and attempt == 1  # guard: client-unseen-at-once
            if ended or self._balancer.others(tried):
                return 0.0  # a new connection, or another server, may well answer at once
        wrong_address = unreached and not self._reached
        if wrong_address and now + pause_s - started > _FIRST_CONTACT_S:  # guard: client-first-contact
            return None
        return pause_s


def _within(error: InvalidRequestError, start: int, stop: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"{error} (counted from item {start}: items {start} to {stop - 1} were sent together)",
        address=error.address,
        asked=error.asked,
        details=error.details,
    )
