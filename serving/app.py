"""The web application: routes of every dialect behind one gate, and the lifetime of what they share."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serving.cohere import classify, models, rerank, tokens, wire
from serving.database import open_database
from serving.dialects import classify as other_classify
from serving.dialects import rerank as other_rerank
from serving.dialects import wire as other_wire
from serving.errors import RequestError
from serving.gate import Gate
from serving.models import Registry
from serving.settings import Settings, load_settings
from training.errors import EncoreError

_SWEEP_SECONDS = 10


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: what to run with; None reads the environment, once the application starts.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        from serving.scoring import Scorer  # brings torch, which importing this module must not

        app.state.settings = chosen = settings or load_settings()
        registry = Registry(chosen.home, open_database(chosen.database))
        app.state.scorer = scorer = Scorer(chosen, registry)
        sweeper = asyncio.create_task(_sweep(app))
        yield
        sweeper.cancel()
        await asyncio.to_thread(scorer.close)

    app = FastAPI(title="Encore", lifespan=lifespan, redirect_slashes=False, openapi_url=None)
    for module in (classify, models, rerank, tokens, other_classify, other_rerank):
        app.include_router(module.router)
    app.add_exception_handler(EncoreError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_middleware(Gate, render=_render)
    return app


def is_ready(app: FastAPI) -> bool:
    """Whether the application has started and its database answers."""
    scorer = getattr(app.state, "scorer", None)
    return scorer is not None and scorer.registry.reachable()


async def _sweep(app: FastAPI) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        app.state.scorer.sweep()


def _render(path: str, error: RequestError) -> Response:
    """Word an error in the dialect that owns the path: the other servers' few, else Cohere's, which is at the root."""
    return other_wire.render(error) if path in other_wire.PATHS else wire.render(error)


def _refused(request: Request, error: Exception) -> Response:
    """Answer any expected error; what is not expected goes on to the gate."""
    return _render(request.url.path, _as_request_error(error))


def _as_request_error(error: Exception) -> RequestError:
    match error:
        case RequestError():
            return error
        case RequestValidationError():
            return RequestError(400, f"invalid request: {wire.first_mistake(error.errors())}")
        case HTTPException(status_code=404):
            return RequestError(404, "404 page not found")
        case HTTPException():
            return RequestError(error.status_code, f"{error.status_code} {error.detail.lower()}", error.headers)
        case _:
            return RequestError(400, f"invalid request: {error}")
