"""The command line of `make fuzz`."""

import argparse
import sys

from fuzz.run import run_target
from fuzz.table import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="of each target; default 2000")
    parser.add_argument("--seed", type=int, default=1, help="of the first case; the others follow; default 1")
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be repeated; default: all")
    arguments = parser.parse_args()
    results = [
        run_target(TARGETS[name], seed=arguments.seed, cases=arguments.cases, say=lambda line: print(line, flush=True))
        for name in arguments.target or TARGETS
    ]
    print(*results, sep="\n")
    print(f"{sum(result.cases for result in results)} cases from seed {arguments.seed}")
    return int(any(result.findings for result in results))


if __name__ == "__main__":
    sys.exit(main())
