"""The guards of the transports: how long calls have waited, and when connections are closed."""

from mutants.mutant import Mutant

_SERVER = "server/inferry_server"
_QUEUE = f"{_SERVER}/transport/completion_queue.py"
_TEST_POLLING = ("tests/server/models/test_polling.py",)

TRANSPORT = (
    Mutant(
        "stop: connections are closed after the answers that are owed",
        _QUEUE,
        "while self._owes_answers() and",
        "while False and",
        _TEST_POLLING,
    ),
    Mutant(
        "wait: what was ready during a batch has waited for it",
        _QUEUE,
        "has_work, asleep_since = bool(work), math.inf",
        "has_work, asleep_since = bool(work), now",
        _TEST_POLLING,
    ),
    Mutant(
        "wait: who finds nothing to read after a batch has caught up",
        _QUEUE,
        "if awake == _AWAKE_POLLS - _EMPTY_POLLS:",
        "if False:",
        _TEST_POLLING,
    ),
    Mutant(
        "stop: grpc.aio too answers first what it owes",
        f"{_SERVER}/transport/aio.py",
        "while self._owes_answers() and",
        "while False and",
        ("tests/server/test_stopping.py",),
    ),
)
