"""One process of an open loop: FOLDER NUMBER. Reads its times there, and leaves its records there."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from inferry_client.connecting.connection import Connection
from inferry_client.load.open_loop import Sending, send
from inferry_client.load.payloads import read_payloads

_CHANNELS = 4  # connections of a process; one has a limit of calls at a time


def main(folder: Path, number: int) -> None:
    """Connect, say so, wait for the start on stdin, send, and keep the records."""
    settings: dict[str, Any] = json.loads((folder / "sending.json").read_text(encoding="utf-8"))
    times = np.load(folder / f"times-{number}.npy")
    payloads = read_payloads(folder)
    connection = Connection(settings["address"])
    channels = tuple(connection.bare_channel(number + each) for each in range(_CHANNELS))

    def begin() -> float:
        print("ready", flush=True)
        return float(sys.stdin.readline())

    late_s = settings["late_s"]
    most_late = float("inf") if late_s is None else settings["most_late"]
    records = send(times, Sending(channels, payloads, settings["timeout_s"], begin, late_s, most_late))
    records.save(folder / f"worker-{number}.records")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
