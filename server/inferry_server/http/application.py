"""What the HTTP port answers: which path goes where, and how what is wrong is told."""

import logging
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inferry_server.http.bodies import ClientGoneError

logger = logging.getLogger(__name__)


def make_application(routes: Sequence[Route]) -> Starlette:
    """The ASGI application; every error is JSON with `error`, as the protocol has it."""
    return Starlette(
        routes=routes,
        exception_handlers={HTTPException: _refused, ClientGoneError: _gone, Exception: _unexpected},
    )


async def _refused(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else ""
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse(
        {"error": f"{request.method} {request.url.path}: {detail}"[:_LONGEST_ERROR]}, code, headers=headers
    )


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("unexpected error in %s", request.url.path, exc_info=error)
    return JSONResponse({"error": "internal error; the server's log has the details"}, 500)


_LONGEST_ERROR = 1024
