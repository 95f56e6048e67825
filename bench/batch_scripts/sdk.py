"""A folder of pictures through the SDK, sixteen requests at a time: some thirty lines, as a user writes them."""

import csv
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inferry_client import Client


def main(folder: str, address: str, model: str, out: str) -> None:
    paths = sorted(Path(folder).iterdir())
    chunks = [paths[start : start + 32] for start in range(0, len(paths), 32)]
    with Client(address) as client, ThreadPoolExecutor(16) as pool, Path(out).open("w", newline="") as file:

        def classify(chunk: list[Path]) -> list[tuple[str, str, float]]:
            answer = client.classify(model, [path.read_bytes() for path in chunk])
            return [
                (path.name, best[0].label, best[0].probability) for path, best in zip(chunk, answer.images, strict=True)
            ]

        writer = csv.writer(file)
        for rows in pool.map(classify, chunks):
            writer.writerows(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
