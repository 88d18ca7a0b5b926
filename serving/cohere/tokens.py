"""POST /v1/tokenize and /v1/detokenize (Cohere API reference, Tokenize and Detokenize)."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, TypeAdapter
from starlette.responses import Response
from tokenizers import Tokenizer

from serving.cohere.wire import answer, meta, parse
from serving.errors import RequestError
from serving.resolve import find_model, scorer_of
from serving.schema import Reads

MAX_LENGTH = 65_536
"""Characters of a text, and tokens of a list."""

router = APIRouter()


class TokenizeBody(BaseModel):
    """What to split, and whose tokenizer to use."""

    text: str = Field(min_length=1, max_length=MAX_LENGTH)
    model: str | None = None


class DetokenizeBody(BaseModel):
    """What to join, and whose tokenizer to use."""

    tokens: list[int] = Field(min_length=1, max_length=MAX_LENGTH, fail_fast=True)
    model: str | None = None


_TOKENIZE, _DETOKENIZE = TypeAdapter(TokenizeBody), TypeAdapter(DetokenizeBody)


@router.post("/v1/tokenize")
@router.post("/v1/v1/tokenize", include_in_schema=False)
async def tokenize(request: Annotated[Request, Reads(TokenizeBody)]) -> Response:
    """Split a text into a model's tokens, without special ones."""
    body = parse(_TOKENIZE, await request.body())
    tokenizer = await _tokenizer(request, body.model)
    content = await asyncio.to_thread(_split, tokenizer, body.text)
    return answer({**content, "meta": meta()})


@router.post("/v1/detokenize")
@router.post("/v1/v1/detokenize", include_in_schema=False)
async def detokenize(request: Annotated[Request, Reads(DetokenizeBody)]) -> Response:
    """Join a model's tokens to a text."""
    body = parse(_DETOKENIZE, await request.body())
    tokenizer = await _tokenizer(request, body.model)
    size = tokenizer.get_vocab_size()
    if outside := next((token for token in body.tokens if not 0 <= token < size), None):
        raise RequestError(400, f"invalid request: token {outside} is not among the model's {size} tokens")
    return answer({"text": await asyncio.to_thread(_join, tokenizer, body.tokens), "meta": meta()})


async def _tokenizer(request: Request, name: str | None) -> Tokenizer:
    model = await find_model(request, name)
    return (await scorer_of(request).engine(model)).encoder.tokenizer


def _split(tokenizer: Tokenizer, text: str) -> dict[str, list[Any]]:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return {"tokens": ids, "token_strings": [_join(tokenizer, [token]) for token in ids]}


def _join(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False)
