"""A folder of pictures, many requests at a time: `python fan_out.py MODEL FOLDER`."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

from inferry_client import AsyncClient, InferryError

AT_A_TIME = 64


async def main(model: str, folder: Path) -> None:
    room = asyncio.Semaphore(AT_A_TIME)
    async with AsyncClient() as client:

        async def label(path: Path) -> str:
            async with room:
                try:
                    return (await client.classify(model, path)).images[0][0].label
                except InferryError as error:
                    print(f"{path}: {error}", file=sys.stderr)
                    return "(not classified)"

        labels = await asyncio.gather(*(label(path) for path in sorted(folder.iterdir())))
    for name, count in Counter(labels).most_common():
        print(f"{count:6}  {name}")


asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
