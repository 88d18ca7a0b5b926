"""The web application: routes of every dialect behind one gate, and the lifetime of what they share."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from functools import cache
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.cohere import classify, datasets, finetuning, models, rerank, tokens, wire
from serving.database import open_database
from serving.dialects import classify as other_classify
from serving.dialects import rerank as other_rerank
from serving.dialects import wire as other_wire
from serving.embedded import keep_worker
from serving.errors import RequestError
from serving.files import Files
from serving.gate import Dialect, Gate
from serving.jobs import Jobs
from serving.openai import chat as openai_chat
from serving.openai import completions as openai_completions
from serving.openai import files as openai_files
from serving.openai import jobs as openai_jobs
from serving.openai import models as openai_models
from serving.openai import wire as openai_wire
from serving.registry import Registry
from serving.schema import describe
from serving.settings import Settings, load_settings
from training.errors import EncoreError

_SWEEP_SECONDS = 10
_ROUTES = (
    *(classify, rerank, datasets, finetuning, models, tokens),
    *(other_classify, other_rerank),
    *(openai_chat, openai_completions, openai_files, openai_jobs, openai_models),
)
_BUSY = frozenset(("/v1/classify", "/v1/rerank", "/v2/rerank", "/openai/v1/completions", "/openai/v1/chat/completions"))
_COHERE = Dialect("Cohere", lambda _scope, error: wire.render(error), wire.CohereError, uploads=datasets.UPLOADS)
_OTHERS = Dialect("TEI, vLLM, Jina, Voyage", lambda _scope, error: other_wire.render(error), other_wire.ServerError)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: what to run with; None reads the environment, once the application starts.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        from serving.scoring import Scorer  # brings torch, which importing this module must not

        app.state.settings = chosen = settings or load_settings()
        database = open_database(chosen.database)
        app.state.scorer = scorer = Scorer(chosen, Registry(chosen.home, database))
        app.state.files, app.state.jobs = Files(chosen.home, database), Jobs(chosen.home, database)
        companions = [asyncio.create_task(_sweep(app))]
        if chosen.embedded_worker:
            companions.append(asyncio.create_task(keep_worker(chosen)))
        yield
        for task in companions:
            task.cancel()
        await asyncio.gather(*companions, return_exceptions=True)
        await asyncio.to_thread(scorer.close)

    app = FastAPI(title="Encore", lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None)
    for module in _ROUTES:
        app.include_router(module.router)
    app.openapi = cache(_description)
    app.add_exception_handler(EncoreError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_middleware(_Shortcuts)
    app.add_middleware(Gate, dialect_of=_dialect_of)
    return app


def is_ready(app: FastAPI) -> bool:
    """Whether the application has started and its database answers."""
    scorer = getattr(app.state, "scorer", None)
    return scorer is not None and scorer.registry.reachable()


class _Shortcuts:
    """Busy paths go from the gate straight to their functions, which take nothing but the request.

    What FastAPI does on the way, for parameters that they do not have, costs as much as they do.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._routes = {route.path: route for route in _routes() if route.path in _BUSY}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except EncoreError as error:
            response = _refused(request, error)
        await response(scope, receive, send)


def _routes() -> list[APIRoute]:
    """Every path of every dialect."""
    return [route for module in _ROUTES for route in module.router.routes if isinstance(route, APIRoute)]


def _description() -> dict[str, Any]:
    """What the application answers, for `/openapi.json`."""
    return describe(_routes(), _dialect_of)


async def _sweep(app: FastAPI) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        app.state.scorer.sweep()


def _dialect_of(path: str) -> Dialect:
    """Whose path it is: OpenAI's by its beginning, the other servers' few, else Cohere's, which is at the root."""
    if path.startswith(f"{openai_wire.MOUNT}/"):
        return openai_wire.DIALECT
    return _OTHERS if path in other_wire.PATHS else _COHERE


def _refused(request: Request, error: Exception) -> Response:
    """Answer any expected error; what is not expected goes on to the gate."""
    return _dialect_of(request.scope["path"]).render(request.scope, _as_request_error(error))


def _as_request_error(error: Exception) -> RequestError:
    match error:
        case RequestError():
            return error
        case RequestValidationError():
            return RequestError(400, f"invalid request: {wire.first_mistake(error.errors())}")
        case HTTPException(status_code=404):
            return RequestError(404, "404 page not found", reason="unknown_path")
        case HTTPException():
            reason = "wrong_method" if error.status_code == 405 else None
            message = f"{error.status_code} {error.detail.lower()}"
            return RequestError(error.status_code, message, error.headers, reason=reason)
        case _:
            return RequestError(400, f"invalid request: {error}")
