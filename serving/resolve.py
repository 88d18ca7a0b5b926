"""Whom a request's `model` means."""

from typing import TYPE_CHECKING, Literal

from fastapi import Request

from serving.errors import RequestError
from serving.models import Model
from serving.names import BASE_NAMES, RERANK_NAMES

if TYPE_CHECKING:
    from serving.scoring import Scorer

Purpose = Literal["classify", "rerank"]

_STAND_INS: dict[Purpose, tuple[str, ...]] = {"classify": BASE_NAMES, "rerank": RERANK_NAMES}


def scorer_of(request: Request) -> "Scorer":
    """The application's scorer."""
    return request.app.state.scorer


async def find_model(request: Request, name: str | None, purpose: Purpose | None = None) -> Model | None:
    """The fine-tuned model of that name or id; None for the server's default base, which hosted base names stand for.

    Args:
        request: the request.
        name: as the client gave it; nothing means the model that the settings name for the purpose, if any.
        purpose: what it is to do; without one, any model will do.

    Raises:
        RequestError: 404 there is no such model, 400 it is of another kind.
    """
    settings = request.app.state.settings
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
        raise RequestError(
            404,
            f"model '{name[:200]}' not found, make sure the correct model ID was used "
            "and that you have access to the model.",
        )
    if purpose and model.task != purpose:
        raise RequestError(400, f"invalid request: model '{name}' is a {model.task} model; it cannot {purpose}")
    return model


def name_of(request: Request, model: Model | None) -> str:
    """What a client that named no model may call the one that answered; the default base's name for None."""
    return model.public_name if model else request.app.state.settings.default_base
