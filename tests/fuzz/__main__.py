"""The command line of `make fuzz`."""

import argparse
import signal
import sys

from fuzz.run import Result, run_target
from fuzz.table import TARGETS
from fuzz.target import FindingError

_LONGEST_CASE_S = 60  # most take less than a millisecond, on any machine


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="of each target; default 2000")
    parser.add_argument("--seed", type=int, default=1, help="of the first case; the others follow; default 1")
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be repeated; default: all")
    arguments = parser.parse_args()
    if arguments.cases < 1 or arguments.seed < 0:
        parser.error(f"--cases is {arguments.cases} and --seed {arguments.seed}; expected at least 1 and 0")
    signal.signal(signal.SIGALRM, _too_long)
    results = [_attack(name, arguments.seed, arguments.cases) for name in arguments.target or TARGETS]
    print(*results, sep="\n")
    print(f"{sum(result.cases for result in results)} cases from seed {arguments.seed}")
    return int(any(result.findings for result in results))


def _attack(name: str, seed: int, cases: int) -> Result:
    def say(line: str) -> None:
        print(line, flush=True)

    try:
        return run_target(
            TARGETS[name], seed=seed, cases=cases, say=say, begin_case=lambda: signal.alarm(_LONGEST_CASE_S)
        )
    finally:
        signal.alarm(0)


def _too_long(*_: object) -> None:
    raise FindingError(f"a case took more than {_LONGEST_CASE_S} s")


if __name__ == "__main__":
    sys.exit(main())
