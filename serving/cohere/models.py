"""GET /v1/models, GET /v1/models/{name}, POST /v1/check-api-key (Cohere API reference, Models)."""

import asyncio
import re
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from serving.cohere.wire import OWNER, answer, wrong_token
from serving.errors import RequestError
from serving.names import BASE_NAMES, RERANK_NAMES
from serving.registry import Model
from serving.resolve import find_model, scorer_of

Endpoint = Literal["chat", "embed", "classify", "summarize", "rerank", "rate", "generate"]

_BASE_CONTEXT = 512
"""Tokens an example or input may have on a base model (Cohere API reference, Classify)."""
_PAGE_TOKEN = re.compile(r"[0-9]{20}-[0-9a-f-]{1,36}")

router = APIRouter()


@router.get("/v1/models")
@router.get("/v1/v1/models", include_in_schema=False)
async def list_models(
    request: Request,
    page_size: Annotated[int, Query(ge=1, le=1000)] = 20,
    page_token: str = "",
    endpoint: Endpoint | None = None,
    default_only: bool = False,
) -> Response:
    """List the base models, then the fine-tuned ones in the order they were added, page by page."""
    if default_only and endpoint is None:
        raise RequestError(400, "invalid request: default_only can only be used together with endpoint")
    if page_token and not _PAGE_TOKEN.fullmatch(page_token):
        raise wrong_token(page_token)
    models = await asyncio.to_thread(scorer_of(request).registry.list)
    entries = {f"{0:020}-{index:02x}": _base(name) for index, name in enumerate(BASE_NAMES + RERANK_NAMES)}
    entries |= {f"{_microseconds(model.created_at):020}-{model.id}": describe(model) for model in models}
    listed = "default_endpoints" if default_only else "endpoints"
    keys = [key for key, entry in entries.items() if key > page_token and (not endpoint or endpoint in entry[listed])]
    page, rest = keys[:page_size], keys[page_size:]
    return answer({"models": [entries[key] for key in page], "next_page_token": page[-1] if rest else ""})


@router.get("/v1/models/{name:path}")
@router.get("/v1/v1/models/{name:path}", include_in_schema=False)
async def get_model(request: Request, name: str) -> Response:
    """Describe one model, by whatever name the endpoints would take."""
    if not name:
        raise RequestError(404, "404 page not found")
    model = await find_model(request, name)
    return answer(describe(model) if model else _base(name))


@router.post("/v1/check-api-key")
@router.post("/v1/v1/check-api-key", include_in_schema=False)
async def check_api_key() -> Response:
    """Tell that the key is good; a bad one does not get as far as this."""
    return answer({"valid": True, "organization_id": OWNER, "owner_id": OWNER})


def describe(model: Model) -> dict[str, Any]:
    """A fine-tuned model as the models API shows it."""
    return _entry(model.public_name, model.task, model.max_length, finetuned=True)


def _base(name: str) -> dict[str, Any]:
    task = "rerank" if name in RERANK_NAMES else "classify"
    return _entry(name, task, _BASE_CONTEXT, finetuned=False)


def _entry(name: str, task: str, context_length: int, *, finetuned: bool) -> dict[str, Any]:
    return {
        "name": name,
        "endpoints": [task],
        "default_endpoints": [task] if name in (BASE_NAMES[0], RERANK_NAMES[0]) else [],
        "finetuned": finetuned,
        "is_deprecated": False,
        "context_length": context_length,
        "tokenizer_url": None,
        "features": None,
    }


def _microseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
