"""What an access policy costs a request: `PYTHONPATH=tests:. python -m bench.access_cost`."""

import tempfile
import time
import timeit
from pathlib import Path

from inferry_proto.services import OPEN_INFERENCE
from inferry_server.rpc.router import Router
from inferry_server.security.access import Access
from inferry_server.security.policy import parse_policy
from inferry_server.telemetry.metrics import ServerMetrics
from testkit.policies import save_policy, token_of

_CALLERS, _CHECKS, _ROUNDS = 50, 20_000, 25


def main() -> None:
    path = OPEN_INFERENCE["ModelInfer"].path
    with tempfile.TemporaryDirectory() as folder:
        policy = save_policy(Path(folder) / "policy.toml", **{f"caller{n}": ("infer",) for n in range(_CALLERS)})
        router = Router(ServerMetrics(), access=Access(parse_policy(policy.read_bytes())))
    metadata = (("user-agent", "grpc-python/1.85.1"), ("authorization", f"Bearer {token_of('caller7')}"))

    def check() -> None:
        assert router.refuses(path, metadata, tuple) is None

    # CPU time of the quickest round: what else runs on the machine does not count.
    check_s, nothing_s = (
        min(timeit.repeat(what, number=_CHECKS, repeat=_ROUNDS, timer=time.process_time)) / _CHECKS
        for what in (check, lambda: None)
    )
    print(
        f"a request's token is checked in {(check_s - nothing_s) * 1e6:.2f} us, with {_CALLERS} callers in the policy"
    )


if __name__ == "__main__":
    main()
