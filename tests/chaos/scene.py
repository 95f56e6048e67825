"""One server under traffic: what a disturbance may use, and how a server is set up for it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.account import Account
from chaos.models import MODEL
from chaos.processes import ServerProcess
from chaos.traffic import Traffic, Way
from testkit.signing_keys import KeyPair

POLL = ("--model-control", "poll", "--poll-interval-s", "0.5")
_LOOK_AGAIN_S = 0.05


class FaultError(AssertionError):
    """The server did something else than it must."""


@dataclass(frozen=True)
class Setup:
    """How a server is started for a disturbance.

    Attributes:
        repository: where it looks for models, as it sees it.
        options: its flags, besides addresses.
        process: further arguments of `ServerProcess`.
        way: further arguments of `Way`.
        keys: that versions are signed with; None: they are not.
        state: what the disturbance changes.
    """

    repository: Path
    options: Sequence[str] = ()
    process: Mapping[str, Any] = field(default_factory=dict)
    way: Mapping[str, Any] = field(default_factory=dict)
    keys: KeyPair | None = None
    state: Any = None


@dataclass
class Scene:
    """What happens to one server. For one thread.

    Attributes:
        folder: of the scene's files; `models` in it is the repository as this process sees it.
        effort: 1 for the full size of everything, less for a shorter form.
        attack: of requests besides the traffic.
    """

    server: ServerProcess
    traffic: Traffic
    setup: Setup
    way: Way
    folder: Path
    effort: float
    attack: Account = field(default_factory=Account)
    ended: float | None = None

    def over(self) -> None:
        """The disturbance ends now: from this moment on the server has to recover."""
        self.ended = time.monotonic()

    def times(self, count: int) -> int:
        """So many, or fewer with less effort."""
        return max(1, round(count * self.effort))

    def wait_for(self, holds: Callable[[], bool], what: str, *, within_s: float = 30.0) -> None:
        """Look until something holds.

        Raises:
            FaultError: it did not come to hold.
        """
        ends = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > ends:
                raise FaultError(f"after {within_s:g} s: not {what}")
            time.sleep(_LOOK_AGAIN_S)

    def serves(self, version: int) -> bool:
        """Whether the server's metrics name a version as served."""
        wanted = f'inferry_model_info{{model="{MODEL}"'
        return any(
            name.startswith(wanted) and f'version="{version}"' in name and value == 1
            for name, value in self.server.metrics().items()
        )

    def loads(self, outcome: str) -> int:
        """Versions that were `ready` or `failed` so far."""
        series = self.server.metrics()
        return int(series.get(f'inferry_model_loads_total{{model="{MODEL}",outcome="{outcome}"}}', 0))
