"""The guards of queue, batches and deadlines."""

from mutants.mutant import Mutant

_TEST_SCHEDULER = ("tests/server/batching/test_scheduler.py",)
_TEST_ROOM = ("tests/server/batching/test_shared_room.py",)
_TEST_DEADLINES = ("tests/server/batching/test_scheduler_deadlines.py",)
_TEST_BATCHER = ("tests/server/executing/test_batcher.py",)
_TEST_INLINE = ("tests/server/executing/test_inline.py",)
_TEST_SHEDDING = ("tests/server/executing/test_inline_shedding.py",)
_TEST_TIMES = ("tests/server/executing/test_inline_times.py",)
_TEST_DATA_COSTS = ("tests/server/runtime/test_data_costs.py",)
_TEST_RECOVERY = ("tests/server/batching/test_recovery.py",)
_TEST_ALONE = ("tests/server/executing/test_alone.py",)
_TEST_FAILURES = ("tests/server/executing/test_batcher_failures.py",)

BATCHING = (
    Mutant("alone-one-request", "alone: requests that cannot share a batch do not", "if False:", _TEST_ALONE),
    Mutant("alone-whole-request", "alone: what was cut is handed out whole", "if False:", _TEST_ALONE),
    Mutant(
        "alone-members-again",
        "alone: a lone request with other rows gets its reply",
        "if len(slices) > 1:",
        _TEST_ALONE,
    ),
    Mutant("alone-batch-under-way", "alone: a batch under way is not shared out", "if False:", _TEST_ALONE),
    Mutant(
        "alone-row-each-picture",
        "alone: every picture has its scores",
        "if False:",
        ("tests/contract/test_alone.py",),
    ),
    Mutant(
        "inline-no-control-flow",
        "inline: control flow is not computed where requests are read",
        "if False:",
        _TEST_DATA_COSTS,
    ),
    Mutant("inline-no-data-sizes", "inline: nor what makes tensors as large as the data says", "", _TEST_DATA_COSTS),
    Mutant("inline-no-free-lengths", "inline: nor models of free lengths", "if False:", _TEST_TIMES),
    Mutant("inline-no-overrun", "inline: nor what overran once", "self.limit_s = self._limit_s", _TEST_TIMES),
    Mutant(
        "inline-stall-forgiven",
        "inline: only what its thread computed counts, no stall",
        "computed_s = ran.batch_s",
        _TEST_TIMES,
    ),
    Mutant("inline-no-varying-times", "inline: nor what takes now this long, now that", "", _TEST_TIMES),
    Mutant("inline-no-unmeasured", "inline: nor what was never measured", "if False:", _TEST_TIMES),
    Mutant("room-rows-lane", "room: rows of a lane are bounded", "if False:", _TEST_SCHEDULER),
    Mutant("room-texts-counted", "room: texts count with their characters", "", _TEST_SCHEDULER),
    Mutant("room-bytes-lane", "room: bytes of a lane are bounded", "if False:", _TEST_SCHEDULER),
    Mutant("room-bytes-all", "room: bytes of all lanes together are bounded", "if False:", _TEST_ROOM),
    Mutant(
        "room-bytes-share",
        "room: no lane is refused its share",
        "if not self._room.has_room(request.nbytes):",
        _TEST_ROOM,
    ),
    Mutant("room-given-back", "room: a version that goes gives its share back", "pass", _TEST_ROOM),
    Mutant("deadline-refused-door", "deadline: refused at the door", "pass", _TEST_DEADLINES),
    Mutant(
        "deadline-passed-refused",
        "deadline: a passed one is refused where nothing is known of the device",
        "if late_s is None:",
        _TEST_DEADLINES,
    ),
    Mutant("deadline-not-computed", "deadline: not computed once it cannot be met", "if True:", _TEST_DEADLINES),
    Mutant(
        "deadline-batch-does", "deadline: a batch does not grow past the earliest", "return wanted", _TEST_DEADLINES
    ),
    Mutant("backlog-makes-late", "backlog: what the queue would make late is refused", "", _TEST_DEADLINES),
    Mutant("backlog-batch-runs", "backlog: the batch that runs is in the way", "return 0.0", _TEST_DEADLINES),
    Mutant(
        "backlog-free-instance",
        "backlog: a free instance is not in the way",
        "if not self.busy_until:",
        _TEST_DEADLINES,
    ),
    Mutant(
        "backlog-bulk-waits",
        "backlog: bulk work waits for interactive requests",
        "for shape, rows in ():",
        _TEST_DEADLINES,
    ),
    Mutant(
        "backlog-due-later",
        "backlog: what is due later is not in the way",
        "if True:",
        _TEST_DEADLINES,
    ),
    Mutant("batch-requests-fit", "batch: requests that fit ride whole", "wanted = room", _TEST_SCHEDULER),
    Mutant("batch-rows-bounded", "batch: rows are bounded", "room = largest", _TEST_SCHEDULER),
    Mutant("batch-large-request", "batch: a large request is cut", "wanted = request.waiting_rows", _TEST_SCHEDULER),
    Mutant("batch-item-shapes", "batch: item shapes agree", "if wanted == 0:", _TEST_SCHEDULER),
    Mutant("settle-once", "settle: once", "if False:", _TEST_SCHEDULER),
    Mutant(
        "settle-cancelled-request",
        "settle: a cancelled request leaves the queue",
        "if False:",
        ("tests/server/batching/test_scheduler.py::test_a_settled_request_makes_room_and_is_never_taken",),
    ),
    Mutant(
        "settle-request-left",
        "settle: a request that left holds no memory",
        "self._entries.pop(request)  # the heap keeps an empty entry, not the tensors",
        _TEST_SCHEDULER,
    ),
    Mutant(
        "lanes-bulk-share",
        "lanes: bulk work gets its share",
        "if bulk and (not interactive or False):",
        ("tests/contract/test_lanes.py",),
    ),
    Mutant(
        "lanes-interactive-first",
        "lanes: interactive requests go first",
        "if bulk and (True or self._interactive_batches >= self._policy.interactive_batches_per_bulk):",
        ("tests/contract/test_lanes.py",),
    ),
    Mutant(
        "lanes-bulk-turn", "lanes: the turn of bulk work is over with its batch", "", ("tests/contract/test_lanes.py",)
    ),
    Mutant(
        "order-earliest-deadline",
        "order: earliest deadline first",
        "entry: _Entry = [next(self._arrivals), self._due(request), request]",
        _TEST_SCHEDULER,
    ),
    Mutant(
        "order-no-deadline",
        "order: no deadline is not overtaken for ever",
        'return float("inf")',
        ("tests/server/batching/test_schedules.py::test_requests_without_a_deadline_are_not_overtaken_for_ever",),
    ),
    Mutant(
        "order-long-deadline",
        "order: a long deadline is due as none",
        "return request.deadline",
        ("tests/server/batching/test_schedules.py::test_nobody_is_overtaken_for_longer_than_the_patience",),
    ),
    Mutant(
        "deadline-any-member", "deadline: one behind the first of a batch bounds it too", "if False:", _TEST_DEADLINES
    ),
    Mutant(
        "deadline-waits-before", "deadline: nobody waits for a batch that makes it late", "before = 0", _TEST_DEADLINES
    ),
    Mutant("doubt-guess", "doubt: nothing is refused on a guess", "if False:", _TEST_RECOVERY),
    Mutant("doubt-at-admission", "doubt: a prediction that refuses is put to the test", "pass", _TEST_RECOVERY),
    Mutant("doubt-in-queue", "doubt: a probe is computed when its turn comes", "if False:", _TEST_RECOVERY),
    Mutant("doubt-turns", "doubt: a neighbour's turns are put to the test too", "pass", _TEST_RECOVERY),
    Mutant("doubt-believed", "doubt: what a probe took is believed at once", "pass", _TEST_RECOVERY),
    Mutant("doubt-turns-believed", "doubt: so is what it waited for its turn", "pass", _TEST_RECOVERY),
    Mutant("doubt-witness", "doubt: what is measured anyway is not probed", "pass", _TEST_RECOVERY),
    Mutant("doubt-disproved", "doubt: what was just disproved refuses nothing", "pass", _TEST_RECOVERY),
    Mutant(
        "doubt-several-batches",
        "doubt: what was just disproved of a request of several batches refuses nothing",
        "if False:",
        _TEST_RECOVERY,
    ),
    Mutant("doubt-rarely", "doubt: probes are rare", "pass", _TEST_RECOVERY),
    Mutant("doubt-bounded", "doubt: what is remembered is bounded", "pass", _TEST_RECOVERY),
    Mutant("shapes-bounded", "latency: so are the shapes that are learned", "pass", _TEST_RECOVERY),
    Mutant(
        "latency-old-batches", "latency: old batches fade", "keep = 1.0", ("tests/server/batching/test_latency.py",)
    ),
    Mutant(
        "latency-fit-held",
        "latency: the fit is held where batches show nothing",
        "_HOLD = 1e-15  # relative weight of the fit before",
        ("tests/server/batching/test_latency.py",),
    ),
    Mutant(
        "latency-time-failed",
        "latency: the time of a failed run is no lesson",
        "if (batch_s := batch_s or 0.0) is None:",
        ("tests/server/batching/test_latency.py", *_TEST_FAILURES),
    ),
    Mutant(
        "overload-given-up",
        "overload: one is given up before all are late",
        "return None",
        _TEST_DEADLINES,
    ),
    Mutant(
        "deadlines-short-met",
        "deadlines: a short one is met among long ones",
        "return late_s",
        _TEST_DEADLINES,
    ),
    Mutant("outputs-row-each", "outputs: only row by row", "", _TEST_FAILURES),
    Mutant(
        "replies-none-after",
        "replies: none after a cancellation",
        "if False:  # cancelled, or another part of it failed",
        _TEST_BATCHER,
    ),
    Mutant(
        "outputs-padding-goes",
        "outputs: padding goes to nobody",
        "scattered.append({name: array[start : None if part is slices[-1] else stop] for name, array in outputs.items()})",
        _TEST_BATCHER,
    ),
    Mutant(
        "outputs-padding-no",
        "outputs: padding is no row the model may fail on",
        "arrays = [*arrays, 0 * np.repeat(arrays[-1][-1:], padding, axis=0)]",
        _TEST_BATCHER,
    ),
    Mutant(
        "outputs-parts-joined", "outputs: parts are joined in order", "self._joined[name][:rows] = array", _TEST_BATCHER
    ),
    Mutant("replies-not-before", "replies: not before every part has come", "if False:", _TEST_BATCHER),
    Mutant(
        "failure-members-failed",
        "failure: members of a failed batch run one by one",
        "self.retry(run, seat, ([part], error))",
        ("tests/contract/test_neighbours.py",),
    ),
    Mutant(
        "failure-was-cancelled",
        "failure: who was cancelled is not run again",
        "if False:  # cancelled meanwhile, or another part of it failed: nobody waits for it",
        ("tests/contract/test_neighbours.py",),
    ),
    Mutant(
        "failure-request-fails",
        "failure: a request fails once",
        "if self._queue.settle(slices[0].request) or True:",
        _TEST_BATCHER,
    ),
    Mutant(
        "failure-reply-cannot",
        "failure: a reply that cannot be made takes no other away",
        "except ZeroDivisionError as error:",
        _TEST_FAILURES,
    ),
    Mutant(
        "statistics-counted-before",
        "statistics: counted before the reply leaves",
        "for *_, send in made:\n    send()\n{guard}",
        _TEST_BATCHER,
    ),
    Mutant("closing-nothing-new", "closing: nothing new is taken", "if False:", _TEST_BATCHER),
    Mutant("closing-model-goes", "closing: a model goes with its batcher", "", _TEST_BATCHER),
    Mutant("closing-left-told", "closing: what is left is told so", "return ()", _TEST_BATCHER),
    Mutant(
        "closing-queued-finished",
        "closing: what is queued is finished",
        "return not waiting.wait_s",
        _TEST_BATCHER,
    ),
    Mutant("inline-not-while", "inline: not while a thread of the instance computes", "if False:", _TEST_INLINE),
    Mutant("inline-thread-wakes", "inline: a thread that wakes leaves an inline batch alone", "if True:", _TEST_INLINE),
    Mutant(
        "inline-nobody-comes",
        "inline: what nobody comes for is computed all the same",
        "if not self._changed.wait(timeout_s) and False:",
        _TEST_INLINE,
    ),
    Mutant("inline-only-short", "inline: only short batches", "if try_turn():", _TEST_INLINE),
    Mutant(
        "inline-nobody-waits",
        "inline: nobody waits for the cores where requests are read",
        "if is_short and (try_turn() or True):",
        _TEST_INLINE,
    ),
    Mutant(
        "shed-full-batch",
        "shedding: requests are shed while a full batch waits",
        "is_full = False",
        _TEST_SHEDDING,
    ),
    Mutant(
        "shed-not-for-bulk",
        "shedding: bulk requests fill no batch for which others are shed",
        "return self.rows >= self._full_rows",
        _TEST_SHEDDING,
    ),
    Mutant(
        "shed-unread-shortly",
        "shedding: calls are refused unread only while the reading thread is about to compute",
        "self._inline_work.shedding = self._shedding",
        _TEST_SHEDDING,
    ),
    Mutant("shed-not-by-bulk", "shedding: a bulk request that is refused sheds nobody", "if True:", _TEST_SHEDDING),
    Mutant("shed-only-lately", "shedding: ends when nothing was refused for a while", "if False:", _TEST_SHEDDING),
    Mutant("shed-cancelled", "shedding: ends when what waits is cancelled", "pass", _TEST_SHEDDING),
    Mutant("shed-closed", "shedding: ends when the queue closes", "", _TEST_SHEDDING),
    Mutant("shed-real-refusals", "shedding: begins with a refusal", "pass", _TEST_SHEDDING),
    Mutant("inline-left-behind", "inline: what is left behind is told of", "if False:", _TEST_INLINE),
)
