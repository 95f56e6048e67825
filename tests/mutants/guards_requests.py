"""The guards between the wire and the queue: checks of requests, streams, shared memory, pictures."""

from mutants.mutant import Mutant

_TEST_SHEDDING = ("tests/server/transport/test_shedding.py",)
_TEST_SHEDDING_BY_MODEL = ("tests/server/services/test_shedding_by_model.py",)

_TEST_CODEC = ("tests/server/wire/test_decode.py",)
_TEST_TABLE = ("tests/contract/test_error_table.py",)
_TEST_ORDER = ("tests/contract/test_check_order.py",)
_TEST_BUSY = "tests/contract/test_error_table_busy.py"
_TEST_LATE = ("tests/server/transport/test_late_endings.py",)
_TEST_QUEUE_CALLS = ("tests/server/transport/test_queue_calls.py",)
_TEST_STREAMS = ("tests/server/services/test_streams.py",)
_TEST_MEMORY = ("tests/server/wire/test_shared_memory.py",)
_TEST_LOADING = ("tests/server/models/test_loading.py",)
_TEST_PICTURES = ("tests/proto/test_preprocessing.py",)
_TEST_CLASSIFIER = ("tests/server/services/test_classifier.py",)
_TEST_FIELDS = ("tests/server/wire/test_fields.py",)
_TEST_COSTLY = ("tests/contract/test_costly_requests.py",)

REQUESTS = (
    Mutant("pictures-proportions", "pictures: a crop box has proportions", "if False:", _TEST_PICTURES),
    Mutant("pictures-crop-size", "pictures: what a crop box refers to is bounded", "if False:", _TEST_PICTURES),
    Mutant("pictures-crop-area", "pictures: a crop box has an area", "if False:", _TEST_LOADING),
    Mutant("pictures-filter", "pictures: a filter is named before they come", "", _TEST_LOADING),
    Mutant("pictures-scans", "pictures: scans are counted", "if False:", _TEST_PICTURES),
    Mutant("pictures-run-lengths", "pictures: what Python decodes is small", "", _TEST_PICTURES),
    Mutant("pictures-segments", "pictures: segments are counted", "if False:", _TEST_PICTURES),
    Mutant("pictures-stopped", "pictures: decoding can be stopped", "", _TEST_PICTURES),
    Mutant("pictures-small", "pictures: only small ones hold up requests", "if False:", _TEST_CLASSIFIER),
    Mutant("pictures-labels-counted", "pictures: labels are counted", "if False:", _TEST_CLASSIFIER),
    Mutant("pictures-timeout", "pictures: decoding takes no longer than it may", "if False:", _TEST_CLASSIFIER),
    Mutant(
        "pictures-by-model", "pictures: pixels are bounded by the model", "return self.max_pixels", _TEST_CLASSIFIER
    ),
    Mutant("fields-counted", "fields: messages with too many are not parsed", "if False:", _TEST_FIELDS),
    Mutant("fields-inside", "fields: those inside of fields count", "", _TEST_FIELDS),
    Mutant("fields-packed", "fields: packed numbers count, unless they are data", "", _TEST_FIELDS),
    Mutant("fields-unary", "fields: unary calls are checked", "", _TEST_COSTLY),
    Mutant("fields-streams", "fields: streams are checked", "", _TEST_COSTLY),
    Mutant("request-texts-counted", "request: texts are counted before they are read", "if False:", _TEST_CODEC),
    Mutant("request-classes-counted", "request: classes are counted before they are written", "if False:", _TEST_CODEC),
    Mutant("request-inputs-ordered", "request: inputs have the model's order", "inputs = came", _TEST_CODEC),
    Mutant("request-rows-bounded", "request: rows are bounded", "if False:", _TEST_CODEC),
    Mutant("request-rows", "request: it has rows", "if False:", _TEST_CODEC),
    Mutant("request-rows-agree", "request: rows agree", "if False:", _TEST_CODEC),
    Mutant("request-shapes-fit", "request: shapes fit", "if False:", _TEST_CODEC),
    Mutant("request-datatypes-fit", "request: datatypes fit", "if False:", _TEST_CODEC),
    Mutant(
        "request-no-input",
        "request: no input comes twice",
        "if (repeated := _first_repeated(tensor.name for tensor in request.inputs)) is NotImplemented:",
        _TEST_CODEC,
    ),
    Mutant("request-names-looked", "request: names are looked at, not only counted", "if False:", _TEST_CODEC),
    Mutant("request-bytes-fit", "request: bytes fit the shape", "if len(data) < expected:", _TEST_CODEC),
    Mutant("request-typed-elements", "request: typed elements fit the shape", "if False:", _TEST_CODEC),
    Mutant("request-element-bytes", "request: an element of BYTES ends where the data ends", "if False:", _TEST_TABLE),
    Mutant("request-data-comes", "request: data comes once", "if False:", _TEST_TABLE),
    Mutant(
        "order-checks-datatypes",
        "order of checks: datatypes before shapes",
        "_check_shape(tensor, spec, model)\n{guard}",
        _TEST_ORDER,
    ),
    Mutant(
        "order-checks-parameters",
        "order of checks: parameters first",
        "find_input_data(request, regions)\n{guard}",
        _TEST_ORDER,
    ),
    Mutant(
        "overload-caller-hears",
        "overload: the caller hears when to come back",
        "if isinstance(error, errors.OverloadedError):",
        (f"{_TEST_BUSY}::test_a_full_queue_is_told_apart_from_a_server_that_is_down",),
    ),
    Mutant(
        "deadlines-earliest-counts",
        "deadlines: the earliest counts",
        "return ends if call_deadline is None else max(ends, call_deadline)",
        ("tests/server/services/test_deadlines.py",),
    ),
    Mutant(
        "deadlines-model-objective",
        "deadlines: a model's objective goes before the server's",
        "objective_s = model_objective_s if self.objective_s is None else self.objective_s",
        ("tests/server/services/test_deadlines.py",),
    ),
    Mutant(
        "streams-replies-order",
        "streams: replies in the order of the requests",
        "self._pending.appendleft(reply)",
        _TEST_STREAMS,
    ),
    Mutant("streams-client-too", "streams: a client with too much unanswered is not read", "", _TEST_STREAMS),
    Mutant("streams-read-when", "streams: read on when there is room", "", _TEST_STREAMS),
    Mutant("streams-failed-request", "streams: a failed request does not end one", "raise", _TEST_STREAMS),
    Mutant("streams-client-goes", "streams: a client that goes takes its requests along", "", _TEST_STREAMS),
    Mutant("streams-end-comes", "streams: the end comes after the last reply", "if True:", _TEST_STREAMS),
    Mutant("streams-error-ends", "streams: nothing follows an error that ended one", "", _TEST_STREAMS),
    Mutant("request-priority-sign", "request: no negative priority", "if False:", _TEST_CODEC),
    Mutant(
        "trace-setting-fixed",
        "traces: clients change no setting",
        "if False:",
        ("tests/server/services/test_trace_settings.py",),
    ),
    Mutant("drain-calls-ask", "drain: calls that ask nothing are sent away", "self.unasked.popitem()", _TEST_LATE),
    Mutant("drain-half-close", "drain: a half-close that is there comes first", "self._drained()", _TEST_QUEUE_CALLS),
    Mutant(
        "drain-half-close-first",
        "drain: a half-close that is there is made sure of first",
        "if receiver is not None:",
        _TEST_QUEUE_CALLS,
    ),
    Mutant(
        "streams-read-twice",
        "streams: a client that has gone is not taken for one that has half-closed",
        "self._loop.soon(lambda: self._half_closed(None))",
        _TEST_QUEUE_CALLS,
    ),
    Mutant(
        "calls-read-twice",
        "calls: a client that has gone without a request gets no status",
        "self._loop.soon(lambda: self._no_request_will_come(None))",
        _TEST_QUEUE_CALLS,
    ),
    Mutant(
        "calls-request-comes",
        "calls: a request that comes after the end is not handled",
        "if False:  # the server is going away, and has not waited for it",
        _TEST_QUEUE_CALLS,
    ),
    Mutant(
        "polling-errors-end",
        "polling: errors end the server at last",
        "if failures < 10 * _MOST_FAILURES:",
        ("tests/server/models/test_polling.py",),
    ),
    Mutant(
        "accounts-outcome-each",
        "accounts: one outcome for each call",
        "if False:",
        ("tests/server/transport/test_ending.py",),
    ),
    Mutant(
        "cancellation-told-asks",
        "cancellation: told to who asks after it",
        "call_now = False",
        ("tests/server/transport/test_ending.py",),
    ),
    Mutant(
        "cancellation-reaches-queue",
        "cancellation: it reaches the queue",
        "return lambda: None",
        (f"{_TEST_BUSY}::test_a_request_cancelled_in_the_queue_is_counted_as_such_and_leaves_it",),
    ),
    Mutant(
        "plans-data-large",
        "plans: data is as large as the header says",
        "if False:",
        ("tests/server/wire/test_reading.py",),
    ),
    Mutant(
        "plans-they-hold",
        "plans: they hold for the version that made them",
        "return plan",
        ("tests/server/wire/test_reading.py",),
    ),
    Mutant(
        "plans-texts-have",
        "plans: texts have no fixed size",
        "return len(incoming.raw_sizes) == len(self._tensors)",
        ("tests/server/wire/test_reading.py",),
    ),
    Mutant(
        "shared-memory-tensor",
        "shared memory: a tensor lies inside its region",
        "if offset < 0 or byte_size < 0:",
        _TEST_MEMORY,
    ),
    Mutant(
        "shared-memory-no",
        "shared memory: no negative offset",
        "if byte_size < 0 or offset + byte_size > size:",
        _TEST_MEMORY,
    ),
    Mutant(
        "shared-memory-region",
        "shared memory: a region lies inside its object",
        "if region.byte_size < 1:",
        _TEST_MEMORY,
    ),
    Mutant("shared-memory-was", "shared memory: what was cut off is not touched", "if False:", _TEST_MEMORY),
    Mutant("shared-memory-keys", "shared memory: keys lead nowhere else", "if not name:", _TEST_MEMORY),
    Mutant(
        "shared-memory-links",
        "shared memory: links are not followed",
        "descriptor = os.open(folder / _object_name(region), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)",
        _TEST_MEMORY,
    ),
    Mutant("shared-memory-nothing", "shared memory: nothing where the setting is off", "if False:", _TEST_MEMORY),
    Mutant("shared-memory-names", "shared memory: names of regions are bounded", "if False:", _TEST_MEMORY),
    Mutant("shared-memory-regions", "shared memory: regions are bounded", "if False:", _TEST_MEMORY),
    Mutant(
        "shared-memory-output", "shared memory: an output has room", "if False:", ("tests/server/wire/test_regions.py",)
    ),
    Mutant(
        "pictures-pixels-bounded", "pictures: pixels are bounded", "if False:", ("tests/proto/test_preprocessing.py",)
    ),
    Mutant(
        "pictures-waiting-bounded",
        "pictures: waiting is bounded in number",
        'self._check("requests to decode", 0, self._max_jobs)',
        ("tests/server/services/test_classifier.py",),
    ),
    Mutant(
        "pictures-waiting-bounded-bytes",
        "pictures: waiting is bounded in bytes",
        'self._check("bytes to decode", 0, self._max_bytes)',
        ("tests/server/services/test_classifier.py",),
    ),
    Mutant(
        "pictures-none-decoded",
        "pictures: none is decoded for a client that is gone",
        "if False:",
        ("tests/server/services/test_classifier.py",),
    ),
    Mutant(
        "pictures-none-decoded-too",
        "pictures: none is decoded too late",
        "if False and (late_s := self._clock() - deadline) >= 0:",
        ("tests/server/services/test_classifier.py",),
    ),
    Mutant("shed-unread", "shedding: calls are refused unread", "if False:", _TEST_SHEDDING),
    Mutant("shed-by-model", "shedding: requests are refused by model", "if False:", _TEST_SHEDDING_BY_MODEL),
    Mutant(
        "shed-no-bulk",
        "shedding: bulk requests are not shed once they are read",
        "if True:",
        _TEST_SHEDDING_BY_MODEL,
    ),
    Mutant("shed-pictures", "shedding: so are pictures", "if False:", _TEST_SHEDDING_BY_MODEL),
    Mutant(
        "shed-one-version",
        "shedding: no call for another model is refused unread",
        "return True",
        _TEST_SHEDDING_BY_MODEL,
    ),
    Mutant("intake-stalls", "intake: a stall is no waiting", "pass", ("tests/server/models/test_polling.py",)),
    Mutant(
        "intake-objective-counts",
        "intake: an objective counts from the arrival",
        "incoming = receive(message, self._clock(), trace)",
        ("tests/server/transport/test_intake.py",),
    ),
)
