"""What keeps callers from seeing that a server is away, and servers from being drowned by callers."""

from mutants.mutant import Mutant

_TEST_CALLING = ("tests/clients/test_calling.py",)
_TEST_RETRIES = ("tests/clients/test_retries.py",)

CLIENTS = (
    Mutant(
        "connect-reports-believed",
        "connect: load reports are believed at once on a new connection",
        '_BY_LOAD: dict[str, object] = {"weighted_round_robin": {}}',
        ("tests/clients/test_balancing.py",),
    ),
    Mutant(
        "client-suspects-last",
        "client: a suspect gets no attempt while another serves",
        "return min(order, key=lambda index: index in avoid)",
        _TEST_CALLING,
    ),
    Mutant(
        "client-suspect-back",
        "client: a suspect is given back only when it answers a probe",
        "if not serving:",
        _TEST_CALLING,
    ),
    Mutant(
        "client-silence",
        "client: silence makes a suspect",
        "if isinstance(error, ServerUnavailableError):",
        _TEST_CALLING,
    ),
    Mutant(
        "client-budget",
        "client: a full server is asked again within the budget only",
        "return True",
        (*_TEST_RETRIES, *_TEST_CALLING),
    ),
    Mutant(
        "client-forbidden",
        "client: a server that forbids it is not asked again",
        "error.retryable = True",
        ("tests/clients/test_client.py",),
    ),
    Mutant(
        "client-late-wish",
        "client: a server that wants to be asked after the deadline is not asked again",
        "if False:",
        _TEST_RETRIES,
    ),
    Mutant(
        "client-first-contact",
        "client: a wrong address shows within seconds",
        "if False:",
        _TEST_CALLING,
    ),
    Mutant(
        "client-unwrapped",
        "client: a server's silence is known by gRPC's words for it, whoever sends again",
        "if wrapped := None:",
        ("tests/clients/test_errors.py",),
    ),
    Mutant(
        "client-unseen-at-once",
        "client: what a server did not look at is sent again at once",
        "ended = False",
        _TEST_CALLING,
    ),
    Mutant(
        "client-asyncio-forked",
        "client: an AsyncClient that a fork has left without gRPC's asyncio says so",
        "if False:",
        ("tests/clients/test_forks.py",),
    ),
    Mutant(
        "client-message-size",
        "client: a request larger than gRPC can carry is cut or refused",
        "if False:",
        ("tests/clients/test_reply_plans.py::test_a_request_that_grpc_could_not_carry_is_refused_or_cut",),
    ),
    Mutant(
        "reply-plan-fits",
        "client: a reply that differs in more than its contents is not read by a plan",
        "if False:",
        ("tests/clients/test_reply_plans.py::test_a_reply_that_differs_in_anything_else_is_read_as_without_a_plan",),
    ),
    Mutant(
        "client-one-version",
        "client: one version answers all parts of a request",
        "",
        _TEST_CALLING,
    ),
    Mutant(
        "client-stream-whose",
        "client: a reply of a stream goes to the request of its number",
        "streamed = self._waiting.pop(next(iter(self._waiting), ''), None)",
        ("tests/clients/test_streaming.py",),
    ),
    Mutant(
        "load-from-schedule",
        "load: latency counts from the scheduled time",
        'took_ms = np.sort((answered["ended"] - answered["sent"]) * 1e3)',
        ("tests/clients/test_open_loop.py::test_latency_counts_from_the_schedule_and_every_request_is_in_one_second",),
    ),
    Mutant(
        "load-time-all",
        "load: time counts from when all processes send",
        "all_send = bool(self._sending)",
        ("tests/clients/test_load.py::test_a_test_begins_once_with_the_first_request_of_its_last_process",),
    ),
    Mutant(
        "load-worker-fails",
        "load: a process that fails ends the test",
        "if False:",
        ("tests/clients/test_load.py::test_a_process_that_fails_is_not_waited_for_until_the_others_end",),
    ),
    Mutant(
        "load-replies-checked",
        "load: a reply with the wrong outputs is a failure",
        "",
        ("tests/clients/test_load_answers.py::test_an_answer_needs_every_output_with_a_row_for_each_sent",),
    ),
    Mutant(
        "load-stream-whose",
        "load: a reply of a stream goes to the request of its number",
        'future = self._waiting.pop(next(iter(self._waiting), ""), None)',
        ("tests/clients/test_load_streams.py::test_replies_in_any_order_reach_their_own_requests",),
    ),
    Mutant(
        "load-client-limit",
        "load: a client that sends late is found out",
        "return False",
        ("tests/clients/test_open_loop.py::test_a_client_that_sends_late_is_the_limit_and_says_so",),
    ),
    Mutant(
        "nothing-ignored",
        "commands: an option that would do nothing is refused",
        "if False:",
        ("tests/clients/test_load_arguments.py",),
    ),
    Mutant(
        "load-files-apart",
        "load: no file that is read is written",
        "if False:",
        ("tests/clients/test_load_arguments.py",),
    ),
    Mutant(
        "load-reports-all",
        "load: a report that cannot be written does not take the next with it",
        "raise",
        ("tests/clients/test_load_reports.py::test_every_report_is_tried_and_the_figures_are_printed_first",),
    ),
    Mutant(
        "load-peak-disturbed",
        "load: a rate that was not held is tried once more",
        "self._note_not_held(rate)",
        ("tests/clients/test_load_peak.py::test_a_trial_that_was_disturbed_does_not_halve_the_peak",),
    ),
    Mutant(
        "load-peak-spoilt",
        "load: a trial that the client spoilt is made again",
        "if False:",
        ("tests/clients/test_load_peak.py::test_a_trial_is_made_again_where_the_client_sent_late",),
    ),
    Mutant(
        "load-peak-twice",
        "load: a rate that is held by chance is no peak",
        "if held:",
        (
            "tests/clients/test_load_peak.py"
            "::test_the_search_ends_without_a_peak_where_nothing_is_held_and_believes_no_rate_held_once",
        ),
    ),
    Mutant(
        "join-limit",
        "client: no joined request is larger than it may be",
        "count = len(stops)",
        ("tests/clients/test_joining.py",),
    ),
    Mutant(
        "pictures-of-four-channels",
        "client: a picture with transparency as an array is not taken for many grey ones",
        "if False:",
        ("tests/clients/test_requests.py",),
    ),
    Mutant(
        "client-one-loop",
        "client: a call on another event loop than the client's is refused in words",
        "if False:",
        ("tests/clients/test_async_client.py",),
    ),
    Mutant(
        "client-tls-off",
        "client: tls=False goes before the variables that ask for TLS",
        "left_out = ()",
        ("tests/clients/test_security.py",),
    ),
    Mutant(
        "client-one-authorization",
        "client: a call carries one authorization",
        "if False:",
        ("tests/clients/test_security.py",),
    ),
    Mutant(
        "join-few-requests",
        "client: while the client is the slower side, no small request leaves beside another",
        "if False:",
        ("tests/clients/test_joining.py",),
    ),
    Mutant(
        "join-halves",
        "client: while the client is the slower side, it sends halves",
        "if False:",
        ("tests/clients/test_joining.py",),
    ),
    Mutant(
        "join-interrupted-waker",
        "client: callers whom an interrupted one should have woken do not sleep until their time is up",
        "if False:",
        ("tests/clients/test_joined_threads.py",),
    ),
    Mutant(
        "join-rows-of-all",
        "client: a joined reply without a row for each that was sent is given to nobody",
        "if False:",
        ("tests/clients/test_joining.py",),
    ),
    Mutant(
        "client-parts-in-time",
        "client: parts of a call, and questions for it, share its time",
        "left_s = timeout_s",
        ("tests/clients/test_calling.py",),
    ),
    Mutant(
        "join-guilty-alone",
        "client: only the guilty call of a joined request fails",
        "blame = False",
        ("tests/clients/test_joining.py",),
    ),
)
