"""The guards between the wire and the queue: checks of requests, streams, shared memory, pictures."""

from mutants.mutant import Mutant

_SERVER = "server/inferry_server"
_CODEC = f"{_SERVER}/codec.py"
_STREAMS = f"{_SERVER}/services/streams.py"
_MEMORY = f"{_SERVER}/shared_memory.py"
_TEST_CODEC = ("tests/server/test_codec.py",)
_TEST_TABLE = ("tests/contract/test_error_table.py",)
_TEST_ORDER = ("tests/contract/test_check_order.py",)
_TEST_BUSY = "tests/contract/test_error_table_busy.py"
_TEST_LATE = ("tests/server/test_late_endings.py",)
_TEST_QUEUE_CALLS = ("tests/server/test_queue_calls.py",)
_TEST_STREAMS = ("tests/server/test_streams.py",)
_TEST_MEMORY = ("tests/server/test_shared_memory.py",)

REQUESTS = (
    Mutant("request: rows are bounded", _CODEC, "if rows > max_request_rows:", "if False:", _TEST_CODEC),
    Mutant("request: it has rows", _CODEC, "if rows < 1:", "if False:", _TEST_CODEC),
    Mutant("request: rows agree", _CODEC, "if other_rows != rows:", "if False:", _TEST_CODEC),
    Mutant("request: shapes fit", _CODEC, "if not fits:", "if False:", _TEST_CODEC),
    Mutant("request: datatypes fit", _CODEC, "if tensor.datatype != spec.datatype.name:", "if False:", _TEST_CODEC),
    Mutant(
        "request: no input comes twice",
        _CODEC,
        "_first_repeated(tensor.name for tensor in request.inputs)) is not None",
        "_first_repeated(tensor.name for tensor in request.inputs)) is NotImplemented",
        _TEST_CODEC,
    ),
    Mutant(
        "request: names are looked at, not only counted",
        _CODEC,
        "        if name not in by_name:\n            raise",
        "        if False:\n            raise",
        _TEST_CODEC,
    ),
    Mutant(
        "request: bytes fit the shape",
        f"{_SERVER}/input_tensors.py",
        "if len(data) != expected:",
        "if len(data) < expected:",
        _TEST_CODEC,
    ),
    Mutant(
        "request: typed elements fit the shape",
        f"{_SERVER}/input_tensors.py",
        "if len(values) != count:",
        "if False:",
        _TEST_CODEC,
    ),
    Mutant(
        "request: an element of BYTES ends where the data ends",
        f"{_SERVER}/tensor_bytes.py",
        "if position > len(data):",
        "if False:",
        _TEST_TABLE,
    ),
    Mutant(
        "request: data comes once",
        f"{_SERVER}/input_tensors.py",
        "if raw_count and has_contents:",
        "if False:",
        _TEST_TABLE,
    ),
    Mutant(
        "order of checks: datatypes before shapes",
        _CODEC,
        "        _check_datatype(tensor, spec, model)\n",
        "        _check_shape(tensor, spec, model)\n        _check_datatype(tensor, spec, model)\n",
        _TEST_ORDER,
    ),
    Mutant(
        "order of checks: parameters first",
        _CODEC,
        "    _check_parameters(request.parameters)\n    if",
        "    find_input_data(request, regions)\n    _check_parameters(request.parameters)\n    if",
        _TEST_ORDER,
    ),
    Mutant(
        "overload: the caller hears when to come back",
        f"{_SERVER}/statuses.py",
        "if isinstance(error, errors.QueueFullError | errors.OverloadedError | errors.DeviceOutOfMemoryError):",
        "if isinstance(error, errors.OverloadedError):",
        (f"{_TEST_BUSY}::test_a_full_queue_is_told_apart_from_a_server_that_is_down",),
    ),
    Mutant(
        "deadlines: the earliest counts",
        f"{_SERVER}/services/deadlines.py",
        "return min(stated)",
        "return max(stated)",
        ("tests/server/test_deadlines.py",),
    ),
    Mutant(
        "deadlines: a model's objective goes before the server's",
        f"{_SERVER}/services/deadlines.py",
        "self.objective_s if model_objective_s is None else model_objective_s",
        "model_objective_s if self.objective_s is None else self.objective_s",
        ("tests/server/test_deadlines.py",),
    ),
    Mutant(
        "streams: answers in the order of the requests",
        _STREAMS,
        "self._pending.append(answer)",
        "self._pending.appendleft(answer)",
        _TEST_STREAMS,
    ),
    Mutant(
        "streams: a client with too much unanswered is not read",
        _STREAMS,
        "                self._call.pause_reading()",
        "                pass",
        _TEST_STREAMS,
    ),
    Mutant(
        "streams: read on when there is room",
        _STREAMS,
        "                    self._call.resume_reading()",
        "                    pass",
        _TEST_STREAMS,
    ),
    Mutant(
        "streams: a failed request does not end one",
        _STREAMS,
        "            answer.fail(error)\n",
        "            raise\n",
        _TEST_STREAMS,
    ),
    Mutant(
        "streams: a client that goes takes its requests along",
        _STREAMS,
        "            answer.cancel()\n",
        "            pass\n",
        _TEST_STREAMS,
    ),
    Mutant(
        "streams: the end comes after the last answer",
        _STREAMS,
        "            if self._pending:\n                return\n",
        "",
        _TEST_STREAMS,
    ),
    Mutant(
        "drain: calls that ask nothing are sent away",
        f"{_SERVER}/rpc/completion_queue.py",
        "fail(self._unasked.pop(), ShuttingDownError())",
        "self._unasked.pop()",
        _TEST_LATE,
    ),
    Mutant(
        "drain: a half-close that is there comes first",
        f"{_SERVER}/rpc/queue_calls.py",
        "self._loop.soon(self._drained)",
        "self._drained()",
        _TEST_QUEUE_CALLS,
    ),
    Mutant(
        "calls: a request that comes after the end is not handled",
        f"{_SERVER}/rpc/queue_calls.py",
        "if self._ended:  # the server",
        "if False:  # the server",
        _TEST_QUEUE_CALLS,
    ),
    Mutant(
        "polling: errors end the server at last",
        f"{_SERVER}/rpc/completion_queue.py",
        "if failures < _MOST_FAILURES:",
        "if failures < 10 * _MOST_FAILURES:",
        ("tests/server/test_polling.py",),
    ),
    Mutant(
        "accounts: one outcome for each call",
        f"{_SERVER}/rpc/ending.py",
        "            if self._ended:\n                return False\n",
        "",
        ("tests/server/test_ending.py",),
    ),
    Mutant(
        "cancellation: told to who asks after it",
        f"{_SERVER}/rpc/ending.py",
        "call_now = self._cancelled",
        "call_now = False",
        ("tests/server/test_ending.py",),
    ),
    Mutant(
        "cancellation: it reaches the queue",
        f"{_SERVER}/services/inference.py",
        "return partial(model.batcher.cancel, queued)",
        "return lambda: None",
        (f"{_TEST_BUSY}::test_a_request_cancelled_in_the_queue_is_counted_as_such_and_leaves_it",),
    ),
    Mutant(
        "plans: data is as large as the header says",
        f"{_SERVER}/plans.py",
        "if [size for _, size in layout.raw] != self._sizes:",
        "if False:",
        ("tests/server/test_plans.py",),
    ),
    Mutant(
        "plans: they hold for the version that made them",
        f"{_SERVER}/plans.py",
        "return plan if plan is not None and plan.signature is signature else None",
        "return plan",
        ("tests/server/test_plans.py",),
    ),
    Mutant(
        "plans: texts have no fixed size",
        f"{_SERVER}/plans.py",
        "return not texts and",
        "return",
        ("tests/server/test_plans.py",),
    ),
    Mutant(
        "shared memory: a tensor lies inside its region",
        _MEMORY,
        "if offset < 0 or byte_size < 0 or offset + byte_size > size:",
        "if offset < 0 or byte_size < 0:",
        _TEST_MEMORY,
    ),
    Mutant(
        "shared memory: no negative offset",
        _MEMORY,
        "if offset < 0 or byte_size < 0 or",
        "if byte_size < 0 or",
        _TEST_MEMORY,
    ),
    Mutant(
        "shared memory: a region lies inside its object",
        _MEMORY,
        "if region.byte_size < 1 or end > facts.st_size:",
        "if region.byte_size < 1:",
        _TEST_MEMORY,
    ),
    Mutant(
        "shared memory: what was cut off is not touched",
        _MEMORY,
        "if not mapped.is_whole():",
        "if False:",
        _TEST_MEMORY,
    ),
    Mutant(
        "shared memory: keys lead nowhere else",
        _MEMORY,
        'if not name or "/" in name or name in (".", ".."):',
        "if not name:",
        _TEST_MEMORY,
    ),
    Mutant(
        "shared memory: links are not followed", _MEMORY, "os.O_RDWR | os.O_NOFOLLOW |", "os.O_RDWR |", _TEST_MEMORY
    ),
    Mutant(
        "shared memory: nothing where the setting is off",
        _MEMORY,
        "        if not self._allowed:\n            raise",
        "        if False:\n            raise",
        _TEST_MEMORY,
    ),
    Mutant(
        "shared memory: regions are bounded",
        _MEMORY,
        "if known is None and len(self._regions) >= MAX_REGIONS:",
        "if False:",
        _TEST_MEMORY,
    ),
    Mutant(
        "shared memory: an output has room",
        f"{_SERVER}/encoding.py",
        "if flat.nbytes > room:",
        "if False:",
        ("tests/server/test_tensor_regions.py",),
    ),
    Mutant(
        "pictures: pixels are bounded",
        "proto/inferry_proto/preprocessing.py",
        "if width * height > max_pixels:",
        "if False:",
        ("tests/proto/test_preprocessing.py",),
    ),
    Mutant(
        "pictures: waiting is bounded in number",
        f"{_SERVER}/services/decoding.py",
        "self._jobs + 1, self._max_jobs",
        "0, self._max_jobs",
        ("tests/server/test_classifier.py",),
    ),
    Mutant(
        "pictures: waiting is bounded in bytes",
        f"{_SERVER}/services/decoding.py",
        "self._bytes + nbytes, self._max_bytes",
        "0, self._max_bytes",
        ("tests/server/test_classifier.py",),
    ),
    Mutant(
        "pictures: none is decoded for a client that is gone",
        f"{_SERVER}/services/classifier.py",
        "if cancellation.cancelled:",
        "if False:",
        ("tests/server/test_classifier.py",),
    ),
    Mutant(
        "pictures: none is decoded too late",
        f"{_SERVER}/services/classifier.py",
        "if deadline is not None and (late_s",
        "if False and (late_s",
        ("tests/server/test_classifier.py",),
    ),
)
