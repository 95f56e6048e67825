"""What keeps a request cheap: nothing else breaks where it is taken away."""

from mutants.mutant import Mutant

_TEST_COSTS = ("tests/server/test_request_costs.py",)

COSTS = (
    Mutant(
        "cost-nobody-woken",
        "cost: nobody is woken for an inline batch",
        "if True:",
        _TEST_COSTS,
    ),
    Mutant(
        "cost-empty-poll",
        "cost: one empty poll is not the end of reading",
        "if is_idle and (has_work or soon) and (empty := empty + 1) < 1:",
        ("tests/server/models/test_polling.py",),
    ),
    Mutant(
        "cost-computed",
        "cost: who computed stays awake for the next request",
        "stays = False",
        ("tests/server/models/test_polling.py",),
    ),
    Mutant(
        "cost-long",
        "cost: who computed for long leaves the cores to others",
        "stays = inline.stays_awake",
        ("tests/server/models/test_polling.py",),
    ),
    Mutant(
        "cost-cores",
        "cost: work may leave the cores to others",
        "stays = not is_long",
        ("tests/server/models/test_polling.py",),
    ),
    Mutant(
        "cost-nothing-do", "cost: who has nothing to do sleeps in the end", "", ("tests/server/models/test_polling.py",)
    ),
    Mutant(
        "cost-stands-before",
        "cost: what stands before the tensors is written once",
        "described = (response.SerializeToString(), prefixes)",
        _TEST_COSTS,
    ),
    Mutant(
        "cost-staged-batch",
        "cost: a batch is put together where the device copies it from",
        "if False:",
        ("tests/server/executing/test_staging.py",),
    ),
    Mutant("cost-connection-known", "cost: a known connection's certificate is not read", "if False:", _TEST_COSTS),
    Mutant("cost-full-batch", "cost: a full batch of one request is not copied", "if False:", _TEST_COSTS),
    Mutant(
        "cost-known-beginning",
        "cost: a request is cut up once for all that begin alike",
        "incoming = None",
        _TEST_COSTS,
    ),
    Mutant(
        "beginnings-of-one-length",
        "cost: requests of another length are cut up anew",
        "known = [*self._known.items(), (0, None)][0][1]",
        ("tests/server/wire/test_reading.py",),
    ),
    Mutant(
        "beginnings-own-id",
        "cost: a request that begins like another keeps its own id",
        'request_id = "7" if id_stop else ""',
        ("tests/server/wire/test_reading.py",),
    ),
    Mutant("cost-requests-asked", "cost: requests that are asked alike are read by a plan", "plan = None", _TEST_COSTS),
    Mutant(
        "cost-reply-operation",
        "cost: a reply is one operation",
        "self.watch() if self._watched else core_layer.watch_close(self._handle, _sent)\ncore_layer.send_reply(self._handle, message, _sent, close_watched=True)",
        _TEST_COSTS,
    ),
    Mutant(
        "connections-counted-seldom",
        "cost: connections are counted as seldom as that is dear",
        "if True:",
        ("tests/server/telemetry/test_metrics.py",),
    ),
)
