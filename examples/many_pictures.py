"""Thousands of pictures, 256 at a time, over several servers: `python many_pictures.py MODEL FOLDER`."""

import asyncio
import sys
from pathlib import Path

from inferry_client import AsyncClient


async def main(model: str, folder: Path) -> None:
    async def label(path: Path) -> str:
        async with room:
            return f"{path.name}  {(await client.classify(model, path)).images[0][0].label}"

    room = asyncio.Semaphore(256)
    async with AsyncClient(timeout_s=60) as client:  # to $INFERRY_SERVER=a:8001,b:8001, with $INFERRY_CERTIFICATE ...
        print(*await asyncio.gather(*map(label, sorted(folder.iterdir()))), sep="\n")


asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
