"""What the HTTP port answers: which path goes where, and how what is wrong is told."""

import logging
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from inferry_server.http.bodies import ClientGoneError

logger = logging.getLogger(__name__)


def make_application(routes: Sequence[Route]) -> Starlette:
    """The ASGI application; every error is JSON with `error`, as the protocol has it."""

    async def refused(request: Request, error: Exception) -> Response:
        code = error.status_code if isinstance(error, HTTPException) else 500
        detail = error.detail if isinstance(error, HTTPException) else ""
        headers = dict((error.headers or {}) if isinstance(error, HTTPException) else {})
        if code == _NOT_ALLOWED:
            allowed = _methods(routes, request)
            headers["Allow"], detail = ", ".join(allowed), f"expected {' or '.join(allowed)}"
        elif code == _NOT_FOUND:
            detail = _no_path(request.url.path)
        message = f"{request.method} {request.url.path[:_LONGEST_PATH]}: {detail}"
        return JSONResponse({"error": message}, code, headers=headers)

    application = Starlette(
        routes=routes,
        exception_handlers={HTTPException: refused, ClientGoneError: _gone, Exception: _unexpected},
    )
    application.router.redirect_slashes = False  # who posts would be told nothing by a redirection
    return application


def _methods(routes: Sequence[Route], request: Request) -> list[str]:
    """What may be asked of a path, by all routes that it has."""
    found = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in found for method in route.methods or ()})


def _no_path(path: str) -> str:
    if path.rstrip("/") and path.endswith("/"):
        return f"expected the path without a slash at its end: {path.rstrip('/')[:_LONGEST_PATH]}"
    return (
        "there is no such path; expected one of the protocol, such as /v2/models/NAME/infer, /v2, /readyz or /metrics "
        "(setting http_inference says whether more than health and metrics is answered)"
    )


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("unexpected error in %s", request.url.path, exc_info=error)
    return JSONResponse({"error": "internal error; the server's log has the details"}, 500)


_LONGEST_PATH = 512
_NOT_FOUND, _NOT_ALLOWED = 404, 405
