"""What keeps a request cheap: nothing else breaks where it is taken away."""

from mutants.mutant import Mutant

_SERVER = "server/inferry_server"
_TEST_COSTS = ("tests/server/test_request_costs.py",)

COSTS = (
    Mutant(
        "cost: nobody is woken for what is kept",
        f"{_SERVER}/executing/request_queue.py",
        "elif not self._keep(now, serve):",
        "if not self._keep(now, serve) or True:",
        _TEST_COSTS,
    ),
    Mutant(
        "cost: one empty poll is not the end of reading",
        f"{_SERVER}/transport/completion_queue.py",
        "(empty := empty + 1) < _EMPTY_POLLS:",
        "(empty := empty + 1) < 1:",
        ("tests/server/models/test_polling.py",),
    ),
    Mutant(
        "cost: who computed stays awake for the next request",
        f"{_SERVER}/transport/completion_queue.py",
        "awake = _AWAKE_POLLS\n                    read_since",
        "read_since",
        ("tests/server/models/test_polling.py",),
    ),
    Mutant(
        "cost: who has nothing to do sleeps in the end",
        f"{_SERVER}/transport/completion_queue.py",
        "awake -= 1",
        "pass",
        ("tests/server/models/test_polling.py",),
    ),
    Mutant(
        "cost: what stands before the tensors is written once",
        f"{_SERVER}/wire/encode.py",
        "described = self._tensors[shapes] =",
        "described =",
        _TEST_COSTS,
    ),
    Mutant(
        "cost: a full batch of one request is not copied",
        f"{_SERVER}/batching/assembly.py",
        "if len(slices) == 1 and not padding:",
        "if False:",
        _TEST_COSTS,
    ),
    Mutant(
        "cost: requests that are asked alike are read by a plan",
        f"{_SERVER}/wire/plans.py",
        "plan = self._plans.get((version, header))",
        "plan = None",
        _TEST_COSTS,
    ),
    Mutant(
        "cost: an answer is one operation",
        f"{_SERVER}/transport/queue_calls.py",
        "            core_layer.send_reply(self._handle, message, _sent, close_watched=self._watched)",
        "            self.watch() if self._watched else core_layer.watch_close(self._handle, _sent)\n"
        "            core_layer.send_reply(self._handle, message, _sent, close_watched=True)",
        _TEST_COSTS,
    ),
)
