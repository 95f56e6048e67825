"""CPU time of a server: of the process that owns the models, and of its front ends."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class ServerCpu:
    """Seconds, of user and system together."""

    owner_s: float
    front_ends_s: float

    def __sub__(self, before: "ServerCpu") -> "ServerCpu":
        return ServerCpu(self.owner_s - before.owner_s, self.front_ends_s - before.front_ends_s)

    def figures(self, requests: int) -> dict[str, float]:
        """Microseconds of each a request."""
        return {"owner_us": self.owner_s / requests * 1e6, "front_ends_us": self.front_ends_s / requests * 1e6}


def cpu_s(server: psutil.Process) -> ServerCpu:
    """What a server has used so far."""
    front_ends = [child for child in server.children() if "inferry_server.front_ends" in child.cmdline()]
    return ServerCpu(_cpu_s(server), sum(map(_cpu_s, front_ends)))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
