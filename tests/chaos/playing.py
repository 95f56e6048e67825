"""One disturbance from beginning to end: rest, disturb, recover, rest, and add everything up."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos.account import Account
from chaos.models import save_version
from chaos.processes import ServerProcess, sums_by, unsettled
from chaos.scene import FaultError, Scene, Setup
from chaos.traffic import CALLERS, Traffic, Way

MOST_MIB, MOST_FILES = 64.0, 8
"""How much more memory, and how many more descriptors, the server may have after a disturbance than before."""
_WARM_S, _REST_S = 2.0, 1.5
_BACK_S = 30.0  # for memory and descriptors to come back
_SETTLE_S = 15.0  # for calls whose clients went away
_GIVE_UP_S = 60.0
_LOOK_AGAIN_S = 0.02


def plain(folder: Path) -> Setup:
    """A server with the settings that users have who set nothing."""
    return Setup(folder / "models")


@dataclass(frozen=True)
class Disturbance:
    """Something that happens to a server.

    Attributes:
        act: does it, and says what was done; raises FaultError where the server did something else than it must.
        within_s: how long recovery may take from its end on.
        setup: how the server is started, given a folder for files.
        allowed: outcomes besides right answers that requests may have meanwhile; afterwards there are none.
        missing: says what this machine lacks to play it; empty: nothing.
    """

    name: str
    act: Callable[[Scene], str]
    within_s: float
    setup: Callable[[Path], Setup] = plain
    allowed: frozenset[str] = frozenset()
    missing: Callable[[], str] = lambda: ""


@dataclass
class Result:
    """What became of it.

    Attributes:
        done: what was done, in words.
        traffic: requests that were sent until the server had recovered.
        attack: requests of the disturbance itself.
        recovered_s: from its end until the server was ready and every caller had a right answer.
        memory: in MiB, before and after.
        files: descriptors, before and after.
        faults: what must not be.
    """

    name: str
    within_s: float
    done: str = ""
    traffic: Account = field(default_factory=Account)
    attack: Account = field(default_factory=Account)
    recovered_s: float = 0.0
    memory: tuple[float, float] = (0.0, 0.0)
    files: tuple[int, int] = (0, 0)
    faults: list[str] = field(default_factory=list)
    skipped: str = ""


def play(disturbance: Disturbance, *, effort: float) -> Result:
    """Play it on a server of its own."""
    result = Result(disturbance.name, disturbance.within_s, skipped=disturbance.missing())
    if result.skipped:
        return result
    with TemporaryDirectory() as name:
        folder = Path(name)
        setup = disturbance.setup(folder)
        save_version(folder / "models", 1, setup.keys)
        options = ("--provider", "cpu", "--http-inference", "on", "--log-level", "warning", *setup.options)
        arguments = {"log": folder / "log", **setup.process}
        try:
            server = ServerProcess(setup.repository, options, **arguments)
        except (OSError, RuntimeError) as error:
            result.faults.append(f"{type(error).__name__}: {error}")
            return result
        try:
            _play_on(server, disturbance, setup, folder, result, effort)
        except (FaultError, OSError, RuntimeError) as error:
            result.faults.append(f"{type(error).__name__}: {error}; the server said: {server.said()}")
        finally:
            if not server.has_ended():
                server.kill()
    return result


def _play_on(
    server: ServerProcess, disturbance: Disturbance, setup: Setup, folder: Path, result: Result, effort: float
) -> None:
    way = Way(server.grpc, server.http, **setup.way)
    traffic = Traffic(way)
    scene = Scene(server, traffic, setup, way, folder, effort, attack=result.attack)
    accounts = [traffic.exchange()]
    traffic.start()
    try:
        time.sleep(_WARM_S)
        before = server.resident_mib(), server.open_files()
        result.traffic = traffic.exchange()
        scene.wait_for(lambda: accounts[0].ended() == accounts[0].sent, "ended: requests of before the disturbance")
        result.done = disturbance.act(scene)
        result.recovered_s = _recovered_after(scene)
        accounts.append(traffic.exchange())
        time.sleep(_REST_S)
        after = _back(server, before)
    finally:
        traffic.end()
    result.memory, result.files = (before[0], after[0]), (before[1], after[1])
    result.faults += faults_of(result, disturbance.allowed, before=accounts[0], after=accounts[1])
    result.faults += _account_of_server(server, sum(a.answered for a in (*accounts, result.traffic)))
    status = server.stop()
    result.faults += [f"the server ended with status {status}"] if status else []


def _recovered_after(scene: Scene) -> float:
    """Seconds from the end of the disturbance until the server is ready and has answered every caller.

    Raises:
        FaultError: it has not for a long time.
    """
    ended = scene.ended if scene.ended is not None else time.monotonic()
    pause = threading.Event()
    while not scene.traffic.all_answered_since(ended) or not scene.server.is_ready():
        if time.monotonic() - ended > _GIVE_UP_S:
            raise FaultError(
                f"{_GIVE_UP_S:g} s after the disturbance the server does not answer all {len(CALLERS)} callers"
            )
        pause.wait(_LOOK_AGAIN_S)
    return time.monotonic() - ended


def _back(server: ServerProcess, before: tuple[float, int]) -> tuple[float, int]:
    """Memory and descriptors once they are what they may be, or after waiting for it."""
    ends = time.monotonic() + _BACK_S
    while True:
        now = server.resident_mib(), server.open_files()
        if (now[0] <= before[0] + MOST_MIB and now[1] <= before[1] + MOST_FILES) or time.monotonic() > ends:
            return now
        time.sleep(10 * _LOOK_AGAIN_S)


def faults_of(result: Result, allowed: frozenset[str], *, before: Account, after: Account) -> list[str]:
    """What must not be: before, meanwhile and afterwards; `allowed` are outcomes that may be meanwhile."""
    faults = []
    for when, account, outcomes in (
        ("before it", before, frozenset[str]()), ("meanwhile", result.traffic, allowed),
        ("afterwards", after, frozenset[str]()),
    ):  # fmt: skip
        if account.sent != account.ended():
            faults.append(f"{when}: {account.sent} requests were sent and {account.ended()} ended")
        if account.wrong:
            faults.append(f"{when}: {account.wrong} answers were wrong")
        others = account.others(outcomes)
        if others:
            faults.append(f"{when}: requests were refused or failed that must not be: {dict(others)}")
    if result.attack.sent != result.attack.ended() or result.attack.wrong:
        faults.append(f"of the disturbance's own requests: {result.attack}")
    if result.recovered_s > result.within_s:
        faults.append(f"recovered after {result.recovered_s:.1f} s; expected {result.within_s:g} s at most")
    if result.memory[1] > result.memory[0] + MOST_MIB:
        faults.append(f"memory went from {result.memory[0]:.0f} to {result.memory[1]:.0f} MiB")
    if result.files[1] > result.files[0] + MOST_FILES:
        faults.append(f"descriptors went from {result.files[0]} to {result.files[1]}")
    return faults


def _account_of_server(server: ServerProcess, answered: int) -> list[str]:
    """What the server counted: every call it received ended, and it answered no fewer than callers saw answered."""
    unequal = unsettled(server, within_s=_SETTLE_S)
    if unequal:
        return [unequal]
    if server.starts > 1:  # the counters began anew
        return []
    counted = sums_by(server.metrics(), "inferry_requests_outcome_total", "code")["OK"]  # of versions that left, too
    return [f"callers saw {answered} answers and the server counted {counted}"] if counted < answered else []
