"""Classify every picture of a folder once: `python batch_job.py MODEL FOLDER RESULTS`; run again, it goes on."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet

model, folder, results = sys.argv[1:]
job = [sys.executable, "-m", "inferry_client", "batch", folder, "--model", model, "--out", results]
subprocess.run(job, check=True)
labels: Counter[str] = Counter()
for part in Path(results).glob("part-*.parquet"):
    labels.update(pyarrow.parquet.read_table(part, columns=["label"])["label"].to_pylist())
for label, count in labels.most_common():
    print(f"{count}  {label}")
