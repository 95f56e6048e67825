"""Batch jobs against a scripted server, and what they leave in their folder."""

import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from inferry_client import Client, RetryPolicy
from inferry_client.batch.job import BatchSettings, Summary, open_job, run_job
from inferry_client.retries import NO_RETRIES
from testkit.scripted_server import ScriptedServer

QUICK = RetryPolicy(max_attempts=8, initial_backoff_s=0.001, max_backoff_s=0.002)


def run_batch(server: ScriptedServer, folder: Path, out: Path, **settings: Any) -> Summary:
    """Open a job and run it: small parts, requests of four pictures, retries without a pause."""
    wanted: dict[str, Any] = {"part_size": 10, "batch_size": 4, "retries": QUICK} | settings
    with (
        Client(server.address, retries=NO_RETRIES) as client,
        open_job(client, BatchSettings(folder, out, **wanted)) as job,
    ):
        return run_job(client, job, progress=lambda _: None)


def read_rows(out: Path) -> list[dict[str, Any]]:
    """What is written of each picture, part after part."""
    parts = sorted(out.glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def read_errors(out: Path) -> dict[str, str]:
    """Why each picture that has no row has none, by its path."""
    with (out / "errors.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}
