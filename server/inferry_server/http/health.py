"""Whether the server lives, is ready, and why not: for Kubernetes' HTTP probes and the protocol's clients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_OK, _NOT_FOUND, _NOT_READY = 200, 404, 503


@dataclass(frozen=True)
class HealthQuestions:
    """What is asked for each reply; every one is answered at once.

    Attributes:
        not_live: why only a new process can help, a sentence each; empty while this one is of use.
        not_ready: why the server is not ready, a sentence each; empty where it is.
        model_versions: the versions of a model that answer, and its labels; None for a model that is unknown.
    """

    not_live: Callable[[], Sequence[str]]
    not_ready: Callable[[], Sequence[str]]
    model_versions: Callable[[str], tuple[Sequence[str], dict[str, int]] | None]


def health_routes(questions: HealthQuestions, tells_reasons: Callable[[Any], bool] = lambda _: True) -> list[Route]:
    """Routes of `/livez`, `/readyz` and the protocol's health.

    Args:
        questions: asked for each reply.
        tells_reasons: whether who asks may hear more than yes or no, by the scope of the request.
    """

    def told(request: Request, reasons: Sequence[str]) -> list[str]:
        return list(reasons) if tells_reasons(request.scope) else ["this is told to clients with a certificate"]

    async def live(request: Request) -> Response:
        reasons = questions.not_live()
        if reasons:  # guard: livez-reading
            return JSONResponse({"live": False, "reasons": told(request, reasons)}, _NOT_READY)
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        reasons = questions.not_ready()
        if reasons:
            return JSONResponse({"ready": False, "reasons": told(request, reasons)}, _NOT_READY)
        return JSONResponse({"ready": True})

    async def model_ready(request: Request) -> Response:
        name, version = request.path_params["model"], request.path_params.get("version", "")
        known = questions.model_versions(name)
        if known is None:
            return JSONResponse({"error": f"model {name!r} is not in the repository"}, _NOT_FOUND)
        answers = _answers(known, version) and not questions.not_ready()
        return JSONResponse({"name": name, "ready": answers}, _OK if answers else _NOT_READY)

    return [
        Route("/livez", live),
        Route("/readyz", ready),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/models/{model}/ready", model_ready),
        Route("/v2/models/{model}/versions/{version}/ready", model_ready),
    ]


def _answers(known: tuple[Sequence[str], dict[str, int]], version: str) -> bool:
    versions, labels = known
    return str(labels.get(version, version)) in versions if version else bool(versions)
