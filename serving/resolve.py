"""Whom a request's `model` means."""

import asyncio
from typing import TYPE_CHECKING, Literal

from fastapi import Request

from serving.errors import RequestError
from serving.files import Files
from serving.jobs import Jobs
from serving.names import BASE_NAMES, RERANK_NAMES, bare_id
from serving.registry import Model
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.scoring import Scorer

Purpose = Literal["classify", "rerank"]

_STAND_INS: dict[Purpose, tuple[str, ...]] = {"classify": BASE_NAMES, "rerank": RERANK_NAMES}


def settings_of(request: Request) -> Settings:
    """What the application runs with."""
    return request.app.state.settings


def scorer_of(request: Request) -> "Scorer":
    """The application's scorer."""
    return request.app.state.scorer


def files_of(request: Request) -> Files:
    """The application's files."""
    return request.app.state.files


def jobs_of(request: Request) -> Jobs:
    """The application's jobs."""
    return request.app.state.jobs


async def find_model(request: Request, name: str | None, purpose: Purpose | None = None) -> Model | None:
    """The fine-tuned model of that name or id; None for the server's default base, which hosted base names stand for.

    Args:
        request: the request.
        name: as the client gave it; nothing means the model that the settings name for the purpose, if any.
        purpose: what it is to do; without one, any model will do.

    Raises:
        RequestError: 404 there is no such model, 400 it is of another kind.
    """
    settings = settings_of(request)
    if not name:
        name = {"classify": settings.default_classifier, "rerank": settings.default_reranker, None: None}[purpose]
    if not name or name == settings.default_base:
        return None
    for other, names in _STAND_INS.items():
        if name in names and purpose in (None, other):
            return None
        if name in names:
            raise RequestError(400, f"invalid request: model '{name}' is a {other} model; it cannot {purpose}")
    model = await scorer_of(request).model(name)
    if model is None:
        if purpose and await asyncio.to_thread(_is_coming, request, name):
            raise RequestError(400, f"finetuned model with name {name} is not ready for serving")
        raise RequestError(
            404,
            f"model '{name[:200]}' not found, make sure the correct model ID was used "
            "and that you have access to the model.",
        )
    if purpose and model.task != purpose:
        raise RequestError(400, f"invalid request: model '{name}' is a {model.task} model; it cannot {purpose}")
    return model


def _is_coming(request: Request, name: str) -> bool:
    """Whether a name is that of a job that has not brought forth its model, be it that it failed."""
    known = bare_id(name)
    job = jobs_of(request).find(known) if known else None
    return job is not None and job.status != "succeeded"


def name_of(request: Request, model: Model | None) -> str:
    """What a client that named no model may call the one that answered; the default base's name for None."""
    return model.public_name if model else settings_of(request).default_base
