"""Batch jobs against a scripted server, and what they leave in their folder."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from inferry_client import Client, RetryPolicy
from inferry_client.batch.decode import DecodeSettings
from inferry_client.batch.decoding import InlineDecoder
from inferry_client.batch.folder import FolderInput
from inferry_client.batch.inputs import Input
from inferry_client.batch.job import LocalEngine, Summary, run_job
from inferry_client.batch.keeping import Draining
from inferry_client.batch.opening import Job, open_job
from inferry_client.batch.predict import open_server_target
from inferry_client.batch.settings import BatchSettings, Progress
from inferry_client.batch.window import Limit, Window
from inferry_client.retries import NO_RETRIES
from testkit.scripted_server import ScriptedServer

QUICK = RetryPolicy(max_attempts=8, initial_backoff_s=0.001, max_backoff_s=0.002)


@contextmanager
def opened(
    address: str, source: Path | Input, out: Path | str, *, retries: RetryPolicy = QUICK, **settings: Any
) -> Iterator[Job]:
    """A job that is open: small parts, requests of four pictures, retries without a pause."""
    wanted: dict[str, Any] = {"part_size": 10, "batch_size": 4, "max_errors": 1.0} | settings
    pictures = FolderInput(source) if isinstance(source, Path) else source
    settings_ = BatchSettings(out, **wanted)
    window = Window(Limit(most=settings_.workers))
    with (
        Client(address, retries=NO_RETRIES) as client,
        open_job(
            pictures,
            settings_,
            lambda begun: open_server_target(
                client, name=None, version="", begun=begun, window=window, retries=retries
            ),
        ) as job,
    ):
        yield job


def run_opened(job: Job, progress: Progress = lambda *_: None, draining: Draining | None = None) -> Summary:
    """Run it, decoding on the threads that send."""
    spec = job.target.model.preprocessing.SerializeToString()
    decoder = InlineDecoder(DecodeSettings(spec, job.settings.max_file_bytes))
    return run_job(job, LocalEngine(decoder), progress=progress, draining=draining)


def run_batch(server: ScriptedServer, source: Path | Input, out: Path | str, **settings: Any) -> Summary:
    """Open a job and run it."""
    with opened(server.address, source, out, **settings) as job:
        return run_opened(job)


def read_rows(out: Path) -> list[dict[str, Any]]:
    """What is written of each picture, part after part."""
    parts = sorted(out.glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def read_errors(out: Path) -> dict[str, str]:
    """Why each picture that has no row has none, by its id."""
    with (out / "errors.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: row["reason"] for row in csv.DictReader(file)}


def files_of(out: Path) -> dict[str, bytes]:
    """The contents of every file of a job, by name, but its lock and the folder of its receipts, which hold times."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != "_lock"}
