"""Progress of a job: a bar for people, a line of JSON for programs."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from inferry_client.batch.settings import Progress

_QUIET_INTERVAL_S = 10.0  # between lines of progress in a log, where nobody watches
_EVENT_INTERVAL_S = 1.0


@contextmanager
def progress_bar(total: int) -> Iterator[Progress]:
    """Pictures done, with rate and time left, on stderr."""
    interval_s = 0.1 if sys.stderr.isatty() else _QUIET_INTERVAL_S
    with tqdm(total=total, unit=" pictures", mininterval=interval_s, file=sys.stderr) as bar:
        bad_in_all = 0

        def tell(done: int, bad: int) -> None:
            nonlocal bad_in_all
            if bad:
                bad_in_all += bad
                bar.set_postfix_str(f"{bad_in_all} errors", refresh=False)
            bar.update(done)

        yield tell


@contextmanager
def progress_events(
    total: int, *, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """A JSON object a second and one at the end: `event`, `done`, `total`, `errors`, `per_second`, `seconds_left`."""
    started = told_at = clock()
    done = bad = 0
    resumed: int | None = None

    def event(name: str) -> None:
        rate = (done - (resumed or 0)) / max(clock() - started, 1e-9)
        left = (total - done) / rate if rate > 0 else None
        document = {"event": name, "done": done, "total": total, "errors": bad, "per_second": round(rate, 1)}
        write(json.dumps(document | {"seconds_left": None if left is None else round(left, 1)}) + "\n")

    def tell(more: int, more_bad: int) -> None:
        nonlocal told_at, done, bad, resumed
        done += more
        bad += more_bad
        if resumed is None:
            resumed = more  # what is told first was done before
        if clock() - told_at >= _EVENT_INTERVAL_S:
            told_at = clock()
            event("progress")

    event("begin")
    try:
        yield tell
    except BaseException:
        event("stopped")
        raise
    event("end")
