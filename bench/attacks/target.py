"""What an attack may know of a server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A server under attack.

    Attributes:
        grpc: its port on loopback.
        http: its other port.
        until: monotonic seconds at which every attack has to have ended.
    """

    grpc: int
    http: int
    until: float
