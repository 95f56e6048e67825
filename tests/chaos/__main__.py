"""The command line of `make chaos`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from chaos.playing import play
from chaos.report import line_of, write_table
from chaos.table import DISTURBANCES

_QUICK = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where nothing was found that must not be."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--only", action="append", metavar="TEXT", help="disturbances whose names contain it")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="play all of it so often (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into a page, as docs/chaos.md")
    parsed = parser.parse_args(arguments)
    chosen = [one for one in DISTURBANCES if not parsed.only or any(text in one.name for text in parsed.only)]
    if not chosen:
        parser.error(f"no disturbance is named like {parsed.only}; expected {', '.join(d.name for d in DISTURBANCES)}")
    if parsed.times < 1 or (parsed.times > 1 and parsed.write is not None):
        parser.error(f"--times is {parsed.times}; expected 1 or more, and 1 with --write")
    os.environ["GRPC_VERBOSITY"] = "NONE"  # clients whose servers end say so at length
    results = []
    for disturbance in chosen * parsed.times:
        results.append(play(disturbance, effort=_QUICK if parsed.quick else 1.0))
        print(line_of(results[-1]), flush=True)
        for fault in results[-1].faults:
            print(f"chaos: error: {results[-1].name}: {fault}", file=sys.stderr, flush=True)
    sent = sum(result.traffic.sent + result.attack.sent for result in results)
    wrong = sum(result.traffic.wrong + result.attack.wrong for result in results)
    failed = sum(bool(result.faults) for result in results)
    skipped = sum(bool(result.skipped) for result in results)
    print(f"{len(results)} disturbances, {skipped} not played, {failed} with faults; {sent} requests, {wrong} wrong")
    if parsed.write is not None:
        write_table(parsed.write, results)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
