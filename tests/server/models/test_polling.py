"""A completion queue that fails: one event more or less, or the end of the server, never a deaf one."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from inferry_proto import open_inference_pb2 as pb
from inferry_server.app import Server
from inferry_server.executing.inline import InlineWork
from inferry_server.lifecycle import Phase
from inferry_server.rpc.router import Router
from inferry_server.rpc.statuses import OK
from inferry_server.settings.settings import Settings
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport import completion_queue
from inferry_server.transport.completion_queue import CompletionQueueTransport
from inferry_server.transport.options import TransportOptions
from testkit import deaf_server, onnx_models
from testkit.rpc import begin
from testkit.servers import ANY_PORT
from testkit.waiting import SOON_S

OPTIONS = TransportOptions(max_message_bytes=1000, max_streams=10)
FAILURES = 10  # after so many the transport gives up


class ScriptedServer:
    """Plays gRPC: `poll` does what the script says, then tells that the server was shut down."""

    def __init__(self, script: list[Exception | Callable[[Any], object] | None]) -> None:
        self.script = script  # errors, events, and None where no event is ready
        self.at_the_end = threading.Event()
        self.pause = threading.Event()
        self.stopped: Callable[[Any], object] | None = None
        self.cancelled = False
        self.on_shutdown: Callable[[], object] = lambda: None
        self.may_sleep: list[bool] = []  # for each poll of the script

    def listen(self, address: str, credentials: object) -> int:
        return 1

    def start(self) -> None: ...

    def request_call(self, on_event: object) -> None: ...

    def poll(self, until: float) -> SimpleNamespace:
        if self.script:
            self.may_sleep.append(until > 0)
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            return SimpleNamespace(tag=step)
        self.at_the_end.set()
        self.pause.wait(0.001)
        return SimpleNamespace(tag=self.stopped)

    def shutdown(self, on_event: Callable[[Any], object]) -> None:
        self.on_shutdown()
        self.stopped = on_event

    def cancel_all_calls(self) -> None:
        self.cancelled = True


def transport_over(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, failed: Callable[[], object]
) -> CompletionQueueTransport:
    monkeypatch.setattr(completion_queue, "CoreServer", lambda _: server)
    transport = CompletionQueueTransport(Router(ServerMetrics()), OPTIONS, failed)
    transport.start(ANY_PORT)
    return transport


def test_an_event_that_cannot_be_had_is_logged_and_the_next_one_handled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[Any] = []
    almost = [OSError("the event is damaged")] * (FAILURES - 1)
    server = ScriptedServer([*almost, handled.append, *almost, handled.append])
    failed = threading.Event()
    transport = transport_over(server, monkeypatch, failed.set)
    assert server.at_the_end.wait(SOON_S)
    transport.stop(SOON_S)
    assert len(handled) == 2
    assert "the event is damaged" in caplog.text
    assert not failed.is_set()
    assert not server.cancelled


def test_a_queue_that_only_fails_is_told_and_its_calls_are_cancelled_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = ScriptedServer([OSError("the queue is gone")] * FAILURES)
    failed = threading.Event()
    transport = transport_over(server, monkeypatch, failed.set)
    assert failed.wait(SOON_S)
    transport.stop(SOON_S)
    assert server.cancelled
    (last,) = (record for record in caplog.records if record.levelno == logging.CRITICAL)
    assert "no call gets a reply any more" in last.message


def test_who_floods_the_server_with_events_does_not_keep_it_from_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    inline, computed, floods = InlineWork(), threading.Event(), threading.Event()

    def flood(event: Any) -> None:
        if not floods.is_set():
            floods.set()
            inline.pending.append(computed.set)
        if not computed.is_set():
            server.script.append(flood)  # there is always another one

    server = ScriptedServer([flood])
    monkeypatch.setattr(completion_queue, "CoreServer", lambda _: server)
    transport = CompletionQueueTransport(Router(ServerMetrics()), OPTIONS, inline=inline)
    transport.start(ANY_PORT)
    assert computed.wait(SOON_S)
    transport.stop(SOON_S)


def test_one_empty_poll_is_no_reason_to_compute_a_smaller_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    inline, computed = InlineWork(), threading.Event()
    order: list[str] = []

    def compute() -> None:
        order.append("computed")
        computed.set()

    server = ScriptedServer([lambda _: inline.pending.append(compute), None, lambda _: order.append("read")])
    monkeypatch.setattr(completion_queue, "CoreServer", lambda _: server)
    transport = CompletionQueueTransport(Router(ServerMetrics()), OPTIONS, inline=inline)
    transport.start(ANY_PORT)
    assert computed.wait(SOON_S)
    transport.stop(SOON_S)
    assert order == ["read", "computed"]


def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The transport's clock, which stands at `now`."""
    clock = SimpleNamespace(now=time.monotonic(), time=time.time, sleep=time.sleep)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(completion_queue, "time", clock)
    return clock


def play_to_the_end(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, inline: InlineWork, clock: SimpleNamespace
) -> None:
    """Have a transport read all of a script, on a clock that stands still but for what is computed."""
    monkeypatch.setattr(completion_queue, "CoreServer", lambda _: server)
    transport = CompletionQueueTransport(Router(ServerMetrics()), OPTIONS, inline=inline)
    transport.start(ANY_PORT)
    assert server.at_the_end.wait(SOON_S)
    clock.monotonic = time.monotonic  # stopping waits
    transport.stop(SOON_S)


def test_a_thread_that_computed_stays_awake_for_the_next_request_and_sleeps_when_none_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inline, clock = InlineWork(), frozen_clock(monkeypatch)
    request, awake = (lambda _: inline.pending.append(lambda: None)), completion_queue._AWAKE_POLLS
    script: list[Exception | Callable[[Any], object] | None] = [lambda _: None, request, *[None] * 4]
    script += [None] * (awake - 1) + [lambda _: None]  # an event at the last moment
    script += [None] * awake + [None, lambda _: None, None]
    server = ScriptedServer(script)
    play_to_the_end(server, monkeypatch, inline, clock)
    assert server.may_sleep == [True] * 2 + [False] * (4 + awake + awake) + [True] * 3


class LeavesCores(InlineWork):
    stays_awake = False


@pytest.mark.parametrize(
    ("inline", "computed_s", "sleeps"),
    [(InlineWork(), 0.0005, False), (InlineWork(), 0.002, True), (LeavesCores(), 0.0005, True)],
)
def test_a_thread_that_computed_for_long_or_whose_work_leaves_the_cores_to_others_sleeps_at_once(
    inline: InlineWork, computed_s: float, sleeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = frozen_clock(monkeypatch)

    def compute() -> None:
        clock.now += computed_s

    server = ScriptedServer([lambda _: inline.pending.append(compute), *[None] * completion_queue._EMPTY_POLLS, None])
    play_to_the_end(server, monkeypatch, inline, clock)
    assert server.may_sleep[-1] == sleeps


def test_what_was_ready_while_a_batch_was_computed_has_waited_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    inline, told, clock = InlineWork(), list[str](), frozen_clock(monkeypatch)

    def compute() -> None:
        clock.now += completion_queue._LONG_S / 2  # after a longer one the thread sleeps at once
        told.append("computed")

    def event(name: str) -> Callable[[Any], object]:
        return lambda _: told.append(name)

    empty = [None] * completion_queue._EMPTY_POLLS
    script: list[Exception | Callable[[Any], object] | None] = [lambda _: inline.pending.append(compute), *empty]
    server = ScriptedServer([*script, event("ready"), *empty, event("later")])
    monkeypatch.setattr(completion_queue, "CoreServer", lambda _: server)
    transport = CompletionQueueTransport(Router(ServerMetrics()), OPTIONS, inline=inline)

    def caught_up(now: float) -> int:
        told.append("caught up")
        return 0

    monkeypatch.setattr(transport._intake, "caught_up", caught_up)
    transport.start(ANY_PORT)
    assert server.at_the_end.wait(SOON_S)
    clock.monotonic = time.monotonic  # stopping waits
    transport.stop(SOON_S)
    assert told[told.index("computed") : told.index("later")][:3] == ["computed", "ready", "caught up"]


def test_what_was_ready_while_the_process_stood_still_has_not_waited_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    stalled_s, told = [0.0], list[float]()
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + stalled_s[0], time=time.time, sleep=time.sleep)
    monkeypatch.setattr(completion_queue, "time", clock)

    def stall(_: object) -> None:
        stalled_s[0] += 50.0

    inline = InlineWork()
    server = ScriptedServer([lambda _: inline.pending.append(lambda: None), stall, lambda _: None])
    monkeypatch.setattr(completion_queue, "CoreServer", lambda _: server)
    transport = CompletionQueueTransport(Router(ServerMetrics()), OPTIONS, inline=inline)
    monkeypatch.setattr(transport._intake, "stalled", told.append)
    transport.start(ANY_PORT)
    assert server.at_the_end.wait(SOON_S)
    transport.stop(SOON_S)
    assert any(50.0 <= seconds < 60.0 for seconds in told)


def test_connections_are_closed_when_every_reply_has_gone_that_is_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    server, router = ScriptedServer([]), Router(ServerMetrics())
    monkeypatch.setattr(completion_queue, "CoreServer", lambda _: server)
    router.add_unary({"/a/B": lambda *_: None})
    accounts = [router.received("/a/B", ()) for _ in range(3)]
    transport = CompletionQueueTransport(router, OPTIONS)
    owes_replies = transport.owes_replies

    def look() -> bool:
        if accounts:
            accounts.pop().ended(OK)  # a reply goes whenever the thread that stops the transport looks
        return owes_replies()

    monkeypatch.setattr(transport, "owes_replies", look)
    in_flight: list[int] = []
    server.on_shutdown = lambda: in_flight.append(router.unary_in_flight())
    transport.start(ANY_PORT)
    transport.stop(SOON_S)
    assert in_flight == [0]


def test_a_server_whose_transport_failed_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script: list[Exception | Callable[[Any], object] | None] = []
    scripted = ScriptedServer(script)
    monkeypatch.setattr(completion_queue, "CoreServer", lambda _: scripted)
    onnx_models.save_doubler(tmp_path)
    told = threading.Event()
    server = Server(
        Settings(repository=tmp_path, grpc_address=ANY_PORT, http_address=ANY_PORT, provider="cpu"),
        transport_failed=told.set,
    )
    server.start()
    before = server.readiness.is_ready()
    script += [OSError("the queue is gone")] * FAILURES
    assert told.wait(SOON_S)
    after, phase = server.readiness.is_ready(), server.readiness.phase
    server.stop()
    assert (before, after, phase) == (True, False, Phase.READY)


def test_the_process_ends_and_says_why(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    any_ports = ["--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
    command = [sys.executable, deaf_server.__file__, "1", "--repository", str(tmp_path), "--provider", "cpu"]
    with subprocess.Popen(
        [*command, *any_ports, "--drain-delay-s", "600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[3].rstrip(",")
        with grpc.insecure_channel(address) as channel:
            asked = begin(channel, "ServerReady", pb.ServerReadyRequest())
            assert asked.exception(SOON_S) is not None
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "OSError: the queue is gone" in stderr
    assert "no call gets a reply any more" in stderr
    assert "stopped: the transport failed" in stderr
