"""GET /models, GET and DELETE /models/{model} (OpenAI API reference, Models)."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.errors import RequestError
from serving.openai.bases import BASES, FAMILIES, is_base
from serving.openai.wire import PREFIX, answer
from serving.registry import Model
from serving.resolve import scorer_of, settings_of
from training.errors import ModelError

router = APIRouter(prefix=PREFIX)


@router.get("/models")
async def list_models(request: Request) -> Response:
    """List the base models, then the fine-tuned ones in the order they were added."""
    models = await asyncio.to_thread(scorer_of(request).registry.list)
    bases = dict.fromkeys((*BASES, *settings_of(request).bases))
    data = [_base(name) for name in bases] + [_tuned(request, model) for model in models]
    return answer({"object": "list", "data": data})


@router.get("/models/{name:path}")
async def get_model(request: Request, name: str) -> Response:
    """Describe one model, by whatever name the endpoints would take."""
    if _is_base(request, name):
        return answer(_base(name))
    return answer(_tuned(request, await find_tuned(request, name)))


@router.delete("/models/{name:path}", responses={403: {}})
async def delete_model(request: Request, name: str) -> Response:
    """Remove a fine-tuned model, and with it those of its epochs."""
    if _is_base(request, name):
        message = f"`{name}` is a base model; only fine-tuned models can be deleted."
        raise RequestError(403, message, param="model", code="cannot_delete_base_model")
    try:
        await asyncio.to_thread(scorer_of(request).registry.remove, name)
    except ModelError:
        raise unknown_model(name) from None
    return answer({"id": name, "object": "model", "deleted": True})


async def find_tuned(request: Request, name: str) -> Model:
    """The fine-tuned model of a name or id.

    Raises:
        RequestError: 404, there is none; 400, it is a base model's name.
    """
    if _is_base(request, name):
        message = f"`{name}` has no labels; fine-tune it first."
        raise RequestError(400, message, param="model", code="model_not_fine_tuned")
    model = await scorer_of(request).model(name)
    if model is None:
        raise unknown_model(name)
    return model


def unknown_model(name: str) -> RequestError:
    """What is wrong is that there is no such model."""
    message = f"The model `{name[:200]}` does not exist or you do not have access to it."
    return RequestError(404, message, code="model_not_found")


def _is_base(request: Request, name: str) -> bool:
    return is_base(name, *settings_of(request).bases)


def _base(name: str) -> dict[str, Any]:
    """Of the server's own bases it is not known since when there are such."""
    family = next((family for family in FAMILIES if name.startswith(family)), "")
    return _entry(name, BASES.get(name, BASES.get(family, 0)), "system")


def _tuned(request: Request, model: Model) -> dict[str, Any]:
    name = model.name
    if name is None or _is_base(request, name):  # such a name means the base
        name = model.public_name
    return _entry(name, int(model.created_at.timestamp()), settings_of(request).organization)


def _entry(name: str, created: int, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owner}
