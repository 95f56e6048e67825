"""The metrics, as Prometheus and its relatives ask for them."""

import asyncio
import gzip
import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def metrics_route(registry: CollectorRegistry) -> Route:
    """The route of `/metrics`. One page at a time is made, on another thread: it may take its time."""
    making = asyncio.Lock()

    def page(accept: str, names: list[str]) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(_OneByOne(registry.restricted_registry(names) if names else registry)), content_type

    async def metrics(request: Request) -> Response:
        accept, names = request.headers.get("accept", ""), request.query_params.getlist("name[]")
        async with making:
            body, content_type = await asyncio.to_thread(page, accept, names)
            headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
            if "gzip" in request.headers.get("accept-encoding", ""):
                body = await asyncio.to_thread(gzip.compress, body, 1)
                headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)

    return Route("/metrics", metrics)


class _OneByOne:
    """A registry that lets other threads go on after each family: whoever reads requests waits for none but one."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        for family in self._registry.collect():
            time.sleep(0)  # guard: metrics-page-yields
            yield family
