"""`inferry batch`: a job with a progress bar."""

import os
import sys
from argparse import Namespace
from pathlib import Path

import pyarrow  # noqa: F401 - found missing before anything is asked or written
from tqdm import tqdm

from inferry_client.batch.errors import JobError
from inferry_client.batch.job import BatchSettings, Summary, open_job, run_job
from inferry_client.client import Client
from inferry_client.output import say

_QUIET_INTERVAL_S = 10.0  # between lines of progress in a log, where nobody watches


def run(args: Namespace) -> int:
    """Run or resume a job; the exit status is 0 if any picture was classified."""
    settings = BatchSettings(
        folder=Path(args.folder),
        out=Path(args.out),
        model=args.model,
        version=args.version,
        batch_size=args.batch_size,
        part_size=args.part_size,
        workers=args.workers or default_workers(os.cpu_count() or 1),
        recursive=args.recursive,
        all_probabilities=args.all_probabilities,
        overwrite=args.overwrite,
    )
    with Client(args.server, timeout_s=args.timeout_s) as client:
        interval_s = 0.1 if sys.stderr.isatty() else _QUIET_INTERVAL_S
        with (
            open_job(client, settings) as job,
            tqdm(total=len(job.pictures), unit=" pictures", mininterval=interval_s, file=sys.stderr) as bar,
        ):
            summary = run_job(client, job, progress=bar.update)
    say(describe(summary, settings.out))
    if summary.classified == 0:
        raise JobError(
            f"none of the {summary.bad} pictures could be classified; {settings.out / 'errors.csv'} says why"
        )
    return 0


def default_workers(cores: int) -> int:
    """Requests prepared or under way at a time: while some wait for the server, others decode."""
    return min(16, max(4, 2 * cores))


def describe(summary: Summary, out: Path) -> str:
    """The summary in one line."""
    plan, total = summary.plan, summary.classified + summary.bad
    resumed = f" ({summary.resumed} done in earlier runs)" if summary.resumed else ""
    errors = f"; {summary.bad} could not be classified, see {out / 'errors.csv'}" if summary.bad else ""
    return (
        f"classified {summary.classified} of {total} pictures{resumed} with {plan.model} version "
        f"{plan.model_version} in {summary.seconds:.1f} s into {out}{errors}"
    )
