"""POST /rerank and /score: one table says whose body is whose, and what each client wants back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, TypeAdapter
from starlette.responses import Response

from serving.cohere.rerank import MAX_DOCUMENTS, Document, check_query, content_of, texts_of
from serving.cohere.wire import answer, parse
from serving.dialects.wire import Texts, listing, usage
from serving.errors import RequestError
from serving.ranking import Ranked, Wish, compare, rank
from serving.schema import Reads

router = APIRouter()


class RankingBody(BaseModel):
    """The fields of every dialect; what is not listed is ignored, as their servers do."""

    model: str | None = None
    query: str | None = None
    documents: list[Document] | None = Field(None, fail_fast=True)
    texts: list[str] | None = Field(None, fail_fast=True)
    top_n: int | None = Field(None, ge=0)
    top_k: int | None = Field(None, ge=0)
    truncation: bool | None = None
    """Only looked for: whoever sends it, long documents are scored by their pieces."""
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    raw_scores: bool | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """Whose request it is, and the answer they expect."""

    mark: str
    """The field that only this dialect's bodies have."""
    render: Callable[[RankingBody, list[str], Ranked], Any]


def _tei(body: RankingBody, texts: list[str], ranked: Ranked) -> Any:
    """TEI's bare array (text-embeddings-inference API, rerank)."""
    return [
        {"index": index, "score": log_odds(score) if body.raw_scores else score}
        | ({"text": texts[index]} if body.return_text else {})
        for index, score in ranked.results
    ]


def _results(body: RankingBody, texts: list[str], ranked: Ranked) -> dict[str, Any]:
    """Cohere's shape with model and usage, as vLLM, Infinity and Jina have it; the latter give documents unasked."""
    content = content_of(ranked, body.documents or texts, whole=body.return_documents is not False)
    return {**content, "model": ranked.model, "usage": usage(ranked.tokens)}


def _voyage(body: RankingBody, texts: list[str], ranked: Ranked) -> dict[str, Any]:
    """Voyage's `data` beside everyone else's `results` (Voyage AI API, rerankers)."""
    data = [
        {"index": index, "relevance_score": score} | ({"document": texts[index]} if body.return_documents else {})
        for index, score in ranked.results
    ]
    return {"object": "list", "data": data, **_results(body, texts, ranked)}


DIALECTS = (Dialect("texts", _tei), Dialect("top_k", _voyage), Dialect("truncation", _voyage))
"""In this order; a body with none of the marks is Cohere's, vLLM's, Infinity's or Jina's, which read the same."""

_BODY = TypeAdapter(RankingBody)


@router.post("/rerank")
async def rerank(request: Annotated[Request, Reads(RankingBody)]) -> Response:
    """Rank documents for a query, whichever of these clients asks."""
    body = parse(_BODY, await request.body())
    query = check_query(body.query)
    texts = texts_of(body.texts if body.texts is not None else body.documents or [], body.rank_fields)
    # 0 means all to vLLM, and null to everyone
    ranked = await rank(request, Wish(body.model, query, texts, body.top_n or body.top_k or None))
    render = next((dialect.render for dialect in DIALECTS if dialect.mark in body.model_fields_set), _results)
    return answer(render(body, texts, ranked))


class ScoreBody(BaseModel):
    """vLLM's names for the two sides of a pair."""

    model: str | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None


_SCORE = TypeAdapter(ScoreBody)


@router.post("/score")
@router.post("/v1/score", include_in_schema=False)
async def score(request: Annotated[Request, Reads(ScoreBody)]) -> Response:
    """Score pairs of texts: one with each of many, or many with as many others (vLLM documentation, score API)."""
    body = parse(_SCORE, await request.body())
    first = body.text_1 or body.queries or body.data_1 or []
    second = body.text_2 or body.documents or body.items or body.data_2 or []
    if not first or not second:
        raise RequestError(400, "invalid request: expected text_1 and text_2, or queries and documents")
    if len(first) not in (1, len(second)):
        raise RequestError(
            400, f"invalid request: {len(first)} texts cannot be paired with {len(second)}; give one, or as many"
        )
    first = first * len(second) if len(first) == 1 else first
    found = await score_pairs(request, body.model, list(zip(first, second, strict=True)))
    data = [{"index": index, "object": "score", "score": value} for index, value in found.results]
    return answer(listing(found.model, data, found.tokens))


async def score_pairs(request: Request, name: str | None, pairs: Sequence[tuple[str, str]]) -> Ranked:
    """Score pairs in their order.

    Raises:
        RequestError: too many, or one with an empty text; see also `rank`.
    """
    if len(pairs) > MAX_DOCUMENTS:
        raise RequestError(
            400, f"invalid request: number of pairs must be at most {MAX_DOCUMENTS} - received {len(pairs)}"
        )
    for index, pair in enumerate(pairs):
        if not all(map(str.strip, pair)):
            raise RequestError(400, f"invalid request: pair {index} has an empty text")
    return await compare(request, name, pairs)


def log_odds(probability: float) -> float:
    """A probability as what was there before the sigmoid."""
    clipped = min(max(probability, 1e-12), 1 - 1e-12)
    return float(np.log(clipped) - np.log1p(-clipped))
