"""Guards of requests that are queued as one."""

from mutants.mutant import Mutant

_TESTS = ("tests/server/services/test_coalescing.py", "tests/server/services/test_coalescing_alike.py")
_GATHERING = ("tests/server/transport/test_gathering.py",)
_FORWARDED = ("tests/server/front_ends/test_calls.py",)
_RECOVERY = ("tests/server/batching/test_recovery.py",)

COALESCING = (
    Mutant("coalesced-traced", "coalescing: a traced request is queued by itself", "if header is not None:", _TESTS),
    Mutant("coalesced-fill", "coalescing: little of a batch stays empty", "most = _MOST", _TESTS),
    Mutant("coalesced-cancelled", "coalescing: each can be cancelled", "", _TESTS),
    Mutant("coalesced-cancelled-room", "coalescing: what was cancelled takes no room", "", _TESTS),
    Mutant("coalesced-own-deadline", "coalescing: each is late by itself", "if False:", _TESTS),
    Mutant("coalesced-closing", "coalescing: each is told, and counted, when the queue closes", "if False:", _TESTS),
    Mutant("coalesced-failed-each", "coalescing: what failed together runs one by one", "if False:", _TESTS),
    Mutant(
        "coalesced-replies-each",
        "coalescing: a reply that cannot be made for all is made for each",
        "if False:",
        _TESTS,
    ),
    Mutant("coalesced-no-split", "coalescing: traffic is split request by request", "if entry is None:", _TESTS),
    Mutant(
        "coalesced-no-bulk",
        "coalescing: bulk work, whose batches may be small, is left as it is",
        "return None if plan is None else _Kind(model, plan)",
        _TESTS,
    ),
    Mutant(
        "coalesced-not-refusing", "coalescing: while requests are refused, each asks for itself", "return True", _TESTS
    ),
    Mutant(
        "coalesced-not-shedding",
        "coalescing: while requests are shed, each asks for itself",
        "if self.serves_alone:",
        _TESTS,
    ),
    Mutant(
        "coalesced-not-relieved",
        "coalescing: while a variant relieves the model, each asks for itself",
        "return self._batched and self._queue.coalesces()",
        _TESTS,
    ),
    Mutant("coalesced-refusal", "coalescing: what is refused together is no refusal", "if False:", _TESTS),
    Mutant(
        "coalesced-late", "coalescing: while those queued as one are late, each asks for itself", "if False:", _TESTS
    ),
    Mutant(
        "coalesced-left-counted",
        "coalescing: of the inputs, those of cancelled requests are not counted",
        "input_bytes += request.nbytes",
        _TESTS,
    ),
    Mutant("coalesced-no-probe", "coalescing: a prediction is tested with a single request", "", _RECOVERY),
    Mutant("gathered-bounded", "coalescing: a request does not wait for more than sixteen", "if False:", _GATHERING),
    Mutant("gathered-briefly", "coalescing: a request does not wait for long for others", "if False:", _GATHERING),
    Mutant("gathered-waited", "coalescing: what a request waits for others counts as waiting", "pass", _GATHERING),
    Mutant("gathered-short", "front ends: requests to be checked are handled by themselves", "elif False:", _FORWARDED),
    Mutant(
        "together-where-handled",
        "front ends: only what has a handler of several is handled together",
        "self._together = [router.together.get(path, 0) for path in paths]",
        _FORWARDED,
    ),
)
