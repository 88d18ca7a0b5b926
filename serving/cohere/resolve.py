"""Whom a request's `model` means."""

from typing import TYPE_CHECKING

from fastapi import Request

from serving.errors import RequestError
from serving.models import Model
from serving.names import BASE_NAMES, RERANK_NAMES

if TYPE_CHECKING:
    from serving.scoring import Scorer


def scorer_of(request: Request) -> "Scorer":
    """The application's scorer."""
    return request.app.state.scorer


async def find_model(request: Request, name: str | None) -> Model | None:
    """The fine-tuned model of that name or id; None for the server's default base, which hosted base names stand for.

    Raises:
        RequestError: 404 there is no such model, 400 it is of another kind.
    """
    if not name or name in BASE_NAMES or name == request.app.state.settings.default_base:
        return None
    if name in RERANK_NAMES:
        raise RequestError(400, f"invalid request: model '{name}' is a rerank model; it cannot classify")
    if model := await scorer_of(request).model(name):
        return model
    raise RequestError(
        404,
        f"model '{name[:200]}' not found, make sure the correct model ID was used "
        "and that you have access to the model.",
    )
