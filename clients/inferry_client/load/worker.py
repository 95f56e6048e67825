"""One process of an open loop: FOLDER NUMBER. Reads its times there, and leaves its records there."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from inferry_client.connecting.connection import Connection
from inferry_client.load.open_loop import Sending, send
from inferry_client.load.payloads import read_payloads
from inferry_client.load.sharing import places_of_channels


def main(folder: Path, number: int) -> None:
    """Connect, say so, wait for the start on stdin, send, and keep the records."""
    settings: dict[str, Any] = json.loads((folder / "sending.json").read_text(encoding="utf-8"))
    times = np.load(folder / f"times-{number}.npy")
    payloads = read_payloads(folder)
    connection = Connection(settings["address"])
    places = places_of_channels(number, servers=len(connection.address.split(",")))
    channels = tuple(connection.bare_channel(place) for place in places)

    def begin() -> float:
        print("ready", flush=True)
        return float(sys.stdin.readline())

    late_s = settings["late_s"]
    most_late = float("inf") if late_s is None else settings["most_late"]
    records = send(times, Sending(channels, payloads, settings["timeout_s"], begin, late_s, most_late))
    records.save(folder / f"worker-{number}.records")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
