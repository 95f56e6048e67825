"""Plays what happens to a deployment, one thing after another, and counts the requests that fail: none may."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from rehearsal.gateway import Gateway
from rehearsal.nginx import play_behind_nginx
from rehearsal.numbers import Numbers, read_numbers
from rehearsal.pods import Release
from rehearsal.rotation import play_rotation
from rehearsal.throttled import OFFERED, faults_of, play_throttled
from rehearsal.traffic import CLIENTS, DEADLINE_S, Traffic, play_phase
from testkit import onnx_models

REPLICAS = 3
CONNECTION_AGE_S = 15  # the one number that is not the manifests' own: theirs is longer than the whole rehearsal
_STEP_S = 4.0  # of traffic at each weight
_SHARE_TOLERANCE = 0.12  # of some hundred requests at a weight of 10 or 50 %: four standard deviations


class Rehearsal:
    """The phases, in the order in which they are played.

    Args:
        stable: three replicas, ready.
        canary: none yet.
        gateway: before both.
        traffic: that flows.
        folder: with the repositories `one` and `two`.
    """

    def __init__(self, stable: Release, canary: Release, gateway: Gateway, traffic: Traffic, folder: Path) -> None:
        self._stable, self._canary, self._gateway, self._traffic = stable, canary, gateway, traffic
        self._one, self._two = folder / "one", folder / "two"
        self.faults: list[str] = []

    def play(self) -> None:
        """All of them."""
        self._phase("rest", lambda: time.sleep(_STEP_S))
        self._phase("rolling update of all replicas", lambda: self._stable.roll(self._one))
        self._phase("one replica is killed", self._lose_one)
        self._phase("scale from three to four, and back to three", self._scale)
        self._canary.scale_up(self._two, 1)
        for percent in (10, 50, 100):
            self._phase(f"canary {percent} %", lambda percent=percent: self._weigh(percent))  # type: ignore[misc]
            self._expect_share(f"canary {percent} %", percent / 100)
        self._phase("rollback", lambda: self._weigh(0))
        self._phase("the canary leaves", lambda: self._canary.scale_down(1))
        self._phase("drains end", self._drain)

    def _phase(self, name: str, act: Callable[[], object]) -> None:
        play_phase(self._traffic, name, act)

    def _lose_one(self) -> None:
        self._stable.lose(self._stable.pods[0])
        self._stable.scale_up(self._one, 1)

    def _scale(self) -> None:
        self._stable.scale_up(self._one, 1)
        self._stable.scale_down(1)

    def _weigh(self, percent: int) -> None:
        self._gateway.set_weights({"stable": 100 - percent, "canary": percent})
        time.sleep(_STEP_S)

    def _expect_share(self, phase: str, share: float) -> None:
        """Of the answers of the new version: about the weight, counted once the weight was in force."""
        versions = self._traffic.versions.get(phase, Counter[str]())
        found = versions.get("2", 0) / max(1, sum(versions.values()))
        if abs(found - share) > _SHARE_TOLERANCE:
            self.faults.append(f"{phase}: {found:.0%} of the answers came from version 2")

    def _drain(self) -> None:
        self._stable.join()
        self._canary.join()
        statuses = self._stable.statuses + self._canary.statuses
        if any(statuses):
            self.faults.append(f"servers that were told to stop ended with statuses {statuses}")


def _more(numbers: Numbers) -> list[str]:
    """What is played with servers of its own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        onnx_models.save_doubler(folder / "one", version=1)
        behind_nginx = play_behind_nginx(folder / "one", numbers)
        callers = play_rotation(folder, numbers)
        print(f"{'certificate renewed':45} {callers.answered:6} answered, {len(callers.failures)} failed", flush=True)
        results = play_throttled(folder, numbers)
    for result in results:
        print(
            f"{f'half speed: {result.balancing}':45} {result.answered:6} answered, "
            f"{result.refused} refused, at {OFFERED:g} of what both can do"
        )
    faults = [f"{phase}: {what}" for phase, failures in behind_nginx.failures.items() for what in failures]
    faults += [f"certificate renewed: {failure}" for failure in callers.failures]
    return faults + faults_of(results)


def main() -> int:
    numbers = read_numbers(overridden={"INFERRY_MAX_CONNECTION_AGE_S": str(CONNECTION_AGE_S)})
    print(f"{REPLICAS} servers with {numbers.environment} behind Envoy; {CLIENTS} clients, deadline {DEADLINE_S:g} s")
    with TemporaryDirectory() as name:
        folder = Path(name)
        onnx_models.save_doubler(folder / "one", version=1)
        onnx_models.save_doubler(folder / "two", version=2)
        (folder / "envoy").mkdir()
        gateway = Gateway(folder / "envoy", numbers.policy)
        stable, canary = Release("stable", gateway, numbers), Release("canary", gateway, numbers)
        try:
            stable.scale_up(folder / "one", REPLICAS)
            with gateway.running(), Traffic(gateway.address) as traffic:
                rehearsal = Rehearsal(stable, canary, gateway, traffic, folder)
                rehearsal.play()
        finally:
            stable.end()
            canary.end()
    faults = [f"{phase}: {what}" for phase, failures in traffic.failures.items() for what in failures]
    faults += rehearsal.faults
    faults += _more(numbers)
    print(f"{'together':45} {sum(traffic.answered.values()):6} answered, {len(faults)} faults")
    for fault in faults[:20]:
        print(f"rehearsal: error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
