"""The guards against what takes too long."""

from mutants.mutant import Mutant

_TEST_WATCHDOG = ("tests/server/executing/test_watchdog.py",)
_TEST_RELIEF = ("tests/server/transport/test_relief.py",)

HANGS = (
    Mutant("watchdog-hangs", "hangs: only what takes too long makes the server not ready", "if True:", _TEST_WATCHDOG),
    Mutant("stop-says-nothing", "hangs: a stop ends that can say nothing", "",
           ("tests/server/test_stop_limit.py",)),
    Mutant("loads-left-behind", "hangs: a load that is left behind takes no cores from requests", "",
           ("tests/server/models/test_load_queue.py",)),
    Mutant("watchdog-stopped-process", "hangs: a stopped process says nothing", "self._still_s += now - self._looked_at",
           _TEST_WATCHDOG),
    Mutant("watchdog-relieves", "hangs: who computes for a moment is not relieved", "if True:", _TEST_RELIEF),
    Mutant("runs-unwanted", "hangs: a run whose callers wait goes on", "is_unwanted = took_s >= unwanted_s",
           _TEST_WATCHDOG),
    Mutant("runs-too-long", "hangs: no run takes longer than it may",
           "if is_unwanted and seat in self._interrupters:", _TEST_WATCHDOG),
    Mutant("runs-ended-once", "hangs: a run that is ended is counted once", "if True:", _TEST_WATCHDOG),
    Mutant("runs-right-one", "hangs: a run that begins meanwhile is not ended", "if True:", _TEST_WATCHDOG),
)  # fmt: skip
