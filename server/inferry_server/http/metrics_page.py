"""The metrics, as Prometheus and its relatives ask for them."""

import asyncio
import gzip

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferry_server.giving_way import in_pieces
from inferry_server.http.accepting import accepts
from inferry_server.telemetry.exposition import PageRegistry, write_page


def metrics_route(registry: PageRegistry) -> Route:
    """The route of `/metrics`. One page at a time is made, on another thread: it may take its time."""
    making = asyncio.Lock()

    async def metrics(request: Request) -> Response:
        accept, names = request.headers.get("accept", ""), request.query_params.getlist("name[]")
        async with making:
            body, content_type = await asyncio.to_thread(_page, registry, accept, names)
            headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
            if accepts("gzip", request.headers.getlist("accept-encoding")):
                body = await asyncio.to_thread(gzip.compress, body, 1)
                headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)

    return Route("/metrics", metrics)


def _page(registry: PageRegistry, accept: str, names: list[str]) -> tuple[bytes, str]:
    """The whole page; whoever reads requests waits for a part of it at most."""
    families, content_type = write_page(registry, accept, names)
    return b"".join(in_pieces(families)), content_type
