"""Environment variables for gRPC, which reads them once, when it is imported: `prepare` must be called before that."""

import os

_READ_WHERE_IT_IS_POLLED = "-event_engine_listener"
"""Connections are read by the thread that polls, and not by threads of gRPC's own.

Those hand every call over, which costs the server two futex calls and a switch of threads: 161 us of CPU a single
image instead of 125 (perf_analyzer, 32 at a time, a model of next to nothing, medians of five alternating rounds).
A gRPC that has no such choice any more ignores the name.
"""


def prepare(*, transport: str, verbose: bool) -> None:
    """Set what is not set yet: a user's own choice stands."""
    if not verbose:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # our errors say what its log would
    if transport == "completion_queue":
        os.environ.setdefault("GRPC_EXPERIMENTS", _READ_WHERE_IT_IS_POLLED)
