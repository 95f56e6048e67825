"""A camera that writes pictures into a folder: `python stream_folder.py MODEL FOLDER [COUNT]`.

Each new picture is classified as it comes; the folder is not read faster than the server answers.
"""

import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from inferry_client import Client

LOOK_AGAIN_S = 0.05


def new_pictures(folder: Path) -> Iterator[Path]:
    """Pictures in the order of their names, those that are there and those that come."""
    seen: set[Path] = set()
    while True:
        for path in sorted(set(folder.glob("*.png")) - seen):
            seen.add(path)
            yield path
        time.sleep(LOOK_AGAIN_S)


model, folder, *count = sys.argv[1:]
pictures = islice(new_pictures(Path(folder)), int(count[0]) if count else None)
with Client() as client:
    for number, result in enumerate(client.stream(model, pictures, window=8)):
        print(f"{number}  {result.images[0][0].label}", flush=True)
