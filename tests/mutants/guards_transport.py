"""The guards of the transports: how long calls have waited, and when connections are closed."""

from mutants.mutant import Mutant

_TEST_FORWARDED = ("tests/server/front_ends/test_calls.py",)
_TEST_ARENA = ("tests/server/front_ends/test_arena.py",)
_TEST_POLLING = ("tests/server/models/test_polling.py",)

_TEST_BOUNDS = ("tests/server/transport/test_bounds.py",)
_TEST_PEERS = ("tests/server/transport/test_peers.py",)
_TEST_UNREAD = ("tests/server/transport/test_aio_unread.py",)
_TEST_OPEN_CALLS = ("tests/server/transport/test_open_calls.py",)
_TEST_UNSENT = ("tests/server/transport/test_unsent.py",)
_TEST_REMAINING = ("tests/server/transport/test_remaining.py",)

TRANSPORT = (
    Mutant("clock-jump-deadline", "deadlines: a jump of the clock is noticed", "is_same = True", _TEST_REMAINING),
    Mutant(
        "clock-jump-deadline-aio",
        "deadlines: over grpc.aio too",
        "remaining_s = context.time_remaining()",
        _TEST_REMAINING,
    ),
    Mutant("overdue-trimmed", "bounds: memory of half-sent requests goes back", "", _TEST_BOUNDS),
    Mutant("overdue-trimmed-aio", "bounds: over grpc.aio too, memory goes back", "", _TEST_BOUNDS),
    Mutant(
        "large-refused-trimmed",
        "bounds: memory of large messages that end streams goes back",
        "if False:",
        ("tests/server/transport/test_queue_calls.py",),
    ),
    Mutant("replies-unread", "bounds: replies that are not read are given up", "if False:", _TEST_BOUNDS),
    Mutant("replies-unread-trimmed", "bounds: and their memory goes back", "if False:", _TEST_BOUNDS),
    Mutant(
        "replies-unread-aio",
        "bounds: over grpc.aio too, replies that are not read are given up",
        "for task in list[asyncio.Task[Any]]():",
        _TEST_BOUNDS,
    ),
    Mutant("half-sent-trimmed", "bounds: memory of requests whose clients left goes back", "", _TEST_BOUNDS),
    Mutant("unsent-messages", "bounds: messages that wait to be sent", "return nbytes >= _MOST_BYTES", _TEST_UNSENT),
    Mutant("unsent-bytes", "bounds: and their bytes", "return messages >= _MOST_MESSAGES", _TEST_UNSENT),
    Mutant("half-sent-trimmed-aio", "bounds: over grpc.aio too, if their clients left", "", _TEST_BOUNDS),
    Mutant("connections-bounded", "bounds: connections", "", _TEST_BOUNDS),
    Mutant("peers-bounded", "bounds: connections of one peer", "return []", _TEST_PEERS),
    Mutant("peers-looked-at-seldom", "bounds: peers are looked at as seldom as that is dear", "if True:", _TEST_PEERS),
    Mutant("peers-urgent", "bounds: and sooner where one may take what others need", "return False", _TEST_PEERS),
    Mutant("peers-come-again", "bounds: and where somebody was cut off", "pass", _TEST_PEERS),
    Mutant("unread-settled", "bounds: over aio calls have time to hear of their ends", "else:", _TEST_UNREAD),
    Mutant("unread-same-socket", "bounds: no newcomer is cut off", "lasting = sockets.keys()", _TEST_UNREAD),
    Mutant("unread-waits-on", "bounds: nobody is cut off for a call that has ended", "if False:", _TEST_UNREAD),
    Mutant("peers-own-socket", "bounds: no other socket is cut off", "if False:", _TEST_PEERS),
    Mutant("streams-idle", "bounds: streams whose clients say nothing", "return []", _TEST_OPEN_CALLS),
    Mutant("streams-owed", "bounds: but none that is owed a reply", "is_owed = False", _TEST_OPEN_CALLS),
    Mutant("streams-unread", "bounds: streams whose clients do not read", "return []", _TEST_OPEN_CALLS),
    Mutant("open-calls", "bounds: calls that wait for their clients", "return []", _TEST_OPEN_CALLS),
    Mutant(
        "memory-short", "bounds: half-sent requests give way where memory is short", "return False", _TEST_OPEN_CALLS
    ),
    Mutant("memory-short-slow", "bounds: but only slow ones", "slow = list(unasked)", _TEST_OPEN_CALLS),
    Mutant("handshakes-late", "bounds: who does not shake hands is not waited for", "", _TEST_BOUNDS),
    Mutant("unread-kept", "bounds: calls may wait unread for as long as their clients do", "", _TEST_BOUNDS),
    Mutant("connections-idle", "bounds: idle connections are closed", "", _TEST_BOUNDS),
    Mutant("requests-overdue", "bounds: who sends no request is not waited for", "", _TEST_BOUNDS),
    Mutant("requests-overdue-aio", "bounds: nor over grpc.aio", "", _TEST_BOUNDS),
    Mutant("health-names", "bounds: watchers keep no long names", "if False:", _TEST_BOUNDS),
    Mutant(
        "reflection-names",
        "bounds: reflection repeats no long names",
        "if False:",
        ("tests/contract/test_services.py::test_reflection_repeats_no_long_names",),
    ),
    Mutant("odd-metadata-log", "log: odd metadata fills none", "", ("tests/server/transport/test_transports.py",)),
    Mutant("tls-files", "tls: files that are none are named", "", ("tests/server/transport/test_transports.py",)),
    Mutant(
        "unix-socket-taken",
        "start: the socket of a server that runs is not taken",
        "if False:",
        ("tests/server/transport/test_transports.py",),
    ),
    Mutant(
        "drain-owed-first",
        "drain: connections are closed after the replies that are owed",
        "while False:",
        ("tests/server/transport/test_drain.py",),
    ),
    Mutant(
        "wait-was-ready",
        "wait: what was ready during a batch has waited for it",
        "has_work, asleep_since = bool(work), now",
        _TEST_POLLING,
    ),
    Mutant(
        "wait-finds-nothing", "wait: who finds nothing to read after a batch has caught up", "if False:", _TEST_POLLING
    ),
    Mutant(
        "front-end-sleeps", "front ends: with several calls the reading thread sleeps", "return True", _TEST_FORWARDED
    ),
    Mutant("front-end-bounded", "front ends: what the owner does not take is bounded", "if False:", _TEST_FORWARDED),
    Mutant(
        "front-end-stream-bounded",
        "front ends: a stream is read no further than the owner takes",
        "if False:",
        _TEST_FORWARDED,
    ),
    Mutant(
        "front-end-told-bytes",
        "front ends: large requests of a stream that were taken are told",
        "if self._taken >= _TOLD_AT:",
        _TEST_FORWARDED,
    ),
    Mutant(
        "front-end-unheard",
        "front ends: signs that nobody reads are not missed",
        "if False:",
        ("tests/server/front_ends/test_slot.py",),
    ),
    Mutant(
        "record-bounded",
        "front ends: what a record announces is bounded",
        "if False:",
        ("tests/server/front_ends/test_records.py",),
    ),
    Mutant("arena-inside", "front ends: no place lies outside of shared memory", "if False:", _TEST_ARENA),
    Mutant(
        "arena-lent-bounded", "front ends: half of shared memory is for messages on their way", "if False:", _TEST_ARENA
    ),
    Mutant(
        "arena-freed-once",
        "front ends: a place is given back once",
        "stop = self._taken.pop(start, start)",
        ("tests/server/front_ends/test_free_space.py",),
    ),
    Mutant("views-wanted", "front ends: only handlers that take views get them", "return message", _TEST_FORWARDED),
)
