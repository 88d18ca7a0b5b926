"""Errors as the clients of these routes look for them, and pieces of their answers."""

import time
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from serving import log
from serving.errors import RequestError
from serving.names import new_id

PATHS = frozenset(("/rerank", "/predict", "/score", "/v1/score", "/classify"))
"""These paths do not say whose client asks."""

_KINDS = {429: "Overloaded", 503: "Unhealthy", 500: "Backend", 504: "Backend"}


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[str], Field(fail_fast=True), BeforeValidator(_listed, json_schema_input_type=str | list[str])]
"""A text or several. Reading stops at the first wrong element, see `serving.cohere.classify.ClassifyBody`."""


class ServerError(BaseModel):
    """An error with the message under each name that a client may read."""

    id: str
    message: str
    error: str
    detail: str
    error_type: str


def render(error: RequestError) -> Response:
    """An error for Cohere's and vLLM's clients, TEI's, and Voyage's."""
    kind = _KINDS.get(error.status, "Validation")
    said = error.message
    body = ServerError(id=log.request_id.get() or new_id(), message=said, error=said, detail=said, error_type=kind)
    return Response(orjson.dumps(body.model_dump()), error.status, error.headers, media_type="application/json")


def listing(model: str, data: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """An answer of vLLM's pooling routes (vLLM documentation, OpenAI-compatible server)."""
    return {
        "id": f"pool-{new_id()}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": usage(tokens),
    }


def usage(tokens: int) -> dict[str, int]:
    """Tokens read, as OpenAI, vLLM, Jina and Voyage count them."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}
