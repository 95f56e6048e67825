"""A front end that hangs is killed, once, and only if it is known to; one that cannot be started is tried again."""

import socket
import subprocess
import time
from typing import Any

import pytest

from inferry_server.addresses import Address
from inferry_server.errors import StartError
from inferry_server.executing.watchdog import Pulse
from inferry_server.front_ends import records
from inferry_server.front_ends import slot as slot_module
from inferry_server.front_ends.calls import ForwardedCalls
from inferry_server.front_ends.channel import Wake
from inferry_server.front_ends.plan import FrontEndPlan
from inferry_server.front_ends.slot import Slot
from inferry_server.front_ends.transport import FrontEndsTransport
from inferry_server.rpc.router import Router
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.options import TransportOptions

OPTIONS = TransportOptions(max_message_bytes=1000, max_streams=10)
PLAN = FrontEndPlan(address="", transport="completion_queue", options=OPTIONS)


class Process:
    """A process that was started, and does nothing."""

    def __init__(self) -> None:
        self.kills = 0

    def kill(self) -> None:
        self.kills += 1


class Played:
    """A slot whose processes and clock are made up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.processes: list[Process] = []
        self.ends: list[Any] = []
        monkeypatch.setattr(slot_module, "Pulse", lambda: Pulse(lambda: self.now))
        monkeypatch.setattr(slot_module, "_start", self._start)
        router = Router(ServerMetrics())
        self.slot = Slot(0, Wake(), lambda put: ForwardedCalls(router, (), put, lambda: None))

    def _start(self) -> tuple[Any, Any, Any]:
        ours, its = socket.socketpair()
        self.ends.append(its)
        self.processes.append(Process())
        return self.processes[-1], ours, None

    def begin(self) -> None:
        self.slot.begin(b"")
        self.tell(records.LISTENING)

    def tell(self, kind: int, body: bytes = b"") -> None:
        self.ends[-1].send(records.write(kind, 0, body))
        assert self.slot.receive()

    def look(self, seconds: int, *, is_heard: bool = True, alive: bool = False) -> None:
        for _ in range(seconds):
            self.now += 1.0
            if alive:
                self.tell(records.ALIVE, records.write_alive(0.0, self.now / 10))
            self.slot.end_if_it_hangs(is_heard=is_heard)

    def close(self) -> None:
        for end in self.ends:
            end.close()
        if self.slot.channel is not None:
            self.slot.channel.close()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Any:
    it = Played(monkeypatch)
    it.begin()
    yield it
    it.close()


def test_a_front_end_without_a_sign_of_life_is_killed_once_and_its_successor_lives(played: Played) -> None:
    played.look(60, alive=True)
    assert played.processes[0].kills == 0
    played.look(25)
    assert played.processes[0].kills == 1
    played.ends[-1].close()
    assert not played.slot.receive()
    played.slot.ended(played.now)
    played.begin()
    played.look(10)  # before its first sign
    played.look(60, alive=True)
    assert [process.kills for process in played.processes] == [1, 0]


def test_signs_that_nobody_reads_are_not_missed(played: Played) -> None:
    played.look(60, is_heard=False)
    played.look(10)
    assert played.processes[0].kills == 0


def test_cpu_time_adds_up_over_the_processes_of_a_place(played: Played) -> None:
    played.tell(records.ALIVE, records.write_alive(0.0, 3.0))
    played.tell(records.ALIVE, records.write_alive(0.5, 4.0))
    assert (played.slot.cpu_s, played.slot.still_s) == (4.0, 0.5)
    played.ends[-1].close()
    assert not played.slot.receive()
    played.slot.ended(played.now)
    played.begin()
    played.tell(records.ALIVE, records.write_alive(0.0, 1.0))
    assert played.slot.cpu_s == 5.0


def no_process(*_: Any, **__: Any) -> Any:
    raise OSError("no more processes")


def test_a_start_without_processes_fails_at_once_and_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", no_process)
    transport = FrontEndsTransport(Router(ServerMetrics()), OPTIONS, PLAN, 2)
    began = time.monotonic()
    with pytest.raises(StartError, match=r"no more processes.*front_ends 0 needs none"):
        transport.start(Address("127.0.0.1", 0))
    assert transport.stop(600.0)
    assert time.monotonic() - began < 60


def test_a_front_end_that_cannot_be_replaced_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch)
    slot = played.slot
    slot.gone.set()
    monkeypatch.setattr(slot_module, "_start", no_process)
    with pytest.raises(StartError):
        slot.begin(b"")
    waits = []
    now = 100.0
    for _ in range(8):
        slot.put_off(now)
        assert not slot.is_due(now)
        wait = next(tenth / 10 for tenth in range(1, 200) if slot.is_due(now + tenth / 10))
        waits.append(wait)
        now += wait
    assert waits == sorted(waits)
    assert waits[-1] == waits[-2]
    played.close()
