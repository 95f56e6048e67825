"""Every disturbance, with the time within which the server has to recover and what may become of requests meanwhile."""

from chaos import (
    by_certificates,
    by_clients,
    by_clocks,
    by_disks,
    by_limits,
    by_load,
    by_signals,
    by_versions,
)
from chaos.account import LATE
from chaos.playing import Disturbance

_GONE = frozenset(("UNAVAILABLE", "CANCELLED", "UNKNOWN", "ConnectionRefusedError", "ConnectionResetError",
                   "RemoteDisconnected", "BrokenPipeError", "IncompleteRead", "BadStatusLine", "HTTP 503"))  # fmt: skip
# Of more than 256 HTTP connections at once, the one that has sent nothing for longest makes room, whosever it is.
_CROWDED = frozenset(("ConnectionResetError", "RemoteDisconnected"))
_SLOW = frozenset((LATE, "DEADLINE_EXCEEDED"))
_FULL = frozenset(("RESOURCE_EXHAUSTED", "HTTP 429", "DEADLINE_EXCEEDED", "HTTP 504"))

# Seconds: a caller whose request was lost waits for its deadline, 5 s, before it asks again; a new process starts in
# some 3 s, on busy cores in 10.
DISTURBANCES = (
    Disturbance("SIGTERM", by_signals.terminate, 15, allowed=_GONE),
    Disturbance("SIGKILL", by_signals.kill, 15, allowed=_GONE),
    Disturbance("SIGKILL: front ends", by_signals.kill_front_ends, 15, by_signals.with_front_ends, allowed=_GONE),
    Disturbance("SIGSTOP", by_signals.stand_still, 10, allowed=_GONE | _SLOW | _FULL),
    Disturbance("full disk: log", by_disks.fill_log, 10, by_disks.silent_log),
    Disturbance("full disk: server", by_disks.fill_temporary, 20, by_disks.small_temporary, missing=by_disks.missing),
    Disturbance("full disk: trainer", by_disks.fill_repository, 10, by_disks.own_repository, missing=by_disks.missing),
    Disturbance("read-only repository", by_disks.lock_repository, 10, by_disks.own_repository,
                missing=by_disks.missing),
    Disturbance("vanished repository", by_disks.take_repository_away, 10, by_disks.polling),
    Disturbance("spoiled versions", by_versions.send_spoiled, 10, by_versions.polling),
    Disturbance("wrongly signed versions", by_versions.send_wrongly_signed, 10, by_versions.signed),
    Disturbance("clock jumps", by_clocks.jump, 10, by_clocks.movable, missing=by_clocks.missing),
    Disturbance("few descriptors", by_limits.use_up_descriptors, 10, by_limits.few_descriptors, allowed=_GONE | _SLOW,
                missing=by_limits.missing),
    Disturbance("little memory", by_limits.use_up_memory, 15, allowed=_GONE | _SLOW | _FULL | {"INTERNAL", "HTTP 500"}),
    Disturbance("vanishing clients", by_clients.vanish, 10, allowed=_CROWDED),
    Disturbance("malformed requests", by_clients.send_rubbish, 10),
    Disturbance("slow loris", by_clients.dawdle, 10, by_clients.hurried),
    Disturbance("overload", by_load.overload, 10, by_load.slowed, allowed=_SLOW | _FULL),
    Disturbance("rotation", by_certificates.exchange, 10, by_certificates.mutual),
)  # fmt: skip
