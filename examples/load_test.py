"""Fail a pipeline whose server is too slow: `python load_test.py MODEL USERS P99_MS`; 1 is the exit status then."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

model, users, p99_ms = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    figures = Path(folder, "figures.json")
    test = [sys.executable, "-m", "inferry_client", "load", "--model", model, "--users", users, "--duration", "3s"]
    tested = subprocess.run([*test, "--p99-ms", p99_ms, "--json", str(figures)], check=False)
    measured = json.loads(figures.read_text())
print(f"p99 {measured['p99_ms']:.1f} ms, {measured['requests_per_second']:.0f} right answers/s")
sys.exit(tested.returncode)
