"""Where a job's time went, and what to change."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from inferry_client.batch.decode import Decoded


class Times:
    """Seconds spent in each stage, summed over everybody who worked in it. Thread-safe.

    Attributes:
        wall_s: from beginning to end.
        read_s: reading pictures, on all decoders together.
        decode_s: decoding them, on all decoders together.
        ask_s: waiting for answers, over all requests.
        write_s: making and writing parts.
        pictures: that were read.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self.wall_s = self.read_s = self.decode_s = self.ask_s = self.write_s = 0.0
        self.pictures = 0

    def ended(self) -> "Times":
        """With the time from the beginning until now."""
        self.wall_s = time.monotonic() - self._started
        return self

    def decoded(self, chunk: Decoded) -> None:
        """A chunk was read and decoded."""
        with self._lock:
            self.read_s += chunk.read_s
            self.decode_s += chunk.decode_s
            self.pictures += len(chunk.digests)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A request is under way."""
        started = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self.ask_s += time.monotonic() - started

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A part is being made and written."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.write_s += time.monotonic() - started


def report_lines(times: Times, *, decoders: int, workers: int, refusals: int) -> list[str]:
    """The report, for people."""
    wall_s = max(times.wall_s, 1e-9)
    busy = (times.read_s + times.decode_s) / (max(1, decoders) * wall_s)
    asking = times.ask_s / (workers * wall_s)
    return [
        f"{times.pictures} pictures in {times.wall_s:.1f} s, {times.pictures / wall_s:.0f}/s",
        f"reading {times.read_s:.1f} s, decoding {times.decode_s:.1f} s: {busy:.0%} of {max(1, decoders)} decoders",
        f"waiting for answers {times.ask_s:.1f} s: {asking:.0%} of {workers} requests at a time; {refusals} refused",
        f"writing parts {times.write_s:.1f} s",
        _advice(busy=busy, asking=asking, reading=times.read_s > times.decode_s, writing=times.write_s / wall_s),
    ]


def cluster_report_lines(times: Times) -> list[str]:
    """The report of a job on a cluster, which tells itself how busy its nodes were."""
    wall_s = max(times.wall_s, 1e-9)
    return [
        f"{times.pictures} pictures in {times.wall_s:.1f} s, {times.pictures / wall_s:.0f}/s",
        f"reading {times.read_s:.1f} s, decoding {times.decode_s:.1f} s, on all nodes together",
        f"writing parts {times.write_s:.1f} s; Ray's own statistics say which operator waited for which",
    ]


def _advice(*, busy: float, asking: float, reading: bool, writing: float) -> str:
    if writing > 0.5:
        return "writing takes the longest: give --out a faster disk, or larger parts (--part-size)"
    if busy > 0.7 and busy >= asking:
        stage = "reading" if reading else "decoding"
        return f"{stage} takes the longest: give the job more cores (--decoders), or several machines (--shard)"
    if asking > 0.7:
        return "the model takes the longest: give it more servers (--server a,b) or a device; decoders wait for it"
    return "no stage is busy all the time: give it more requests at a time (--workers) or larger ones (--batch-size)"
