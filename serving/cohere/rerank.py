"""POST /v1/rerank and /v2/rerank (Cohere API reference, Rerank)."""

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, TypeAdapter
from starlette.responses import Response

from serving.cohere.wire import answer, meta, parse
from serving.errors import RequestError
from serving.names import new_id
from serving.ranking import COSINE_WARNING, Ranked, Wish, rank
from serving.schema import Reads

MAX_DOCUMENTS = 10_000
MAX_CHUNKS = 10_000
"""Documents times pieces of each, where the client says how many pieces."""
DOCUMENTS_PER_UNIT = 100
_V2_TOKENS = 4096

Document = str | dict[str, Any]

router = APIRouter()


class RerankBody(BaseModel):
    """The request of both versions; what one of them does not know is taken as the other means it.

    The SDK sends null for what was given as None, and may send fields that are not listed.
    """

    model: str | None = None
    query: str | None = None
    documents: list[Document] | None = Field(None, fail_fast=True)
    top_n: int | None = Field(None, ge=1)
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    max_chunks_per_doc: int | None = Field(None, ge=1)
    max_tokens_per_doc: int | None = Field(None, ge=1)


_BODY = TypeAdapter(RerankBody)


@router.post("/v1/rerank")
@router.post("/v1/v1/rerank", include_in_schema=False)
async def rerank_v1(request: Annotated[Request, Reads(RerankBody)]) -> Response:
    """Rank up to 10,000 documents; long ones by the best of their first ten pieces, or as many as asked for."""
    return await rerank(request, await request.body(), version=1)


@router.post("/v2/rerank")
@router.post("/v1/v2/rerank", include_in_schema=False)
async def rerank_v2(request: Annotated[Request, Reads(RerankBody)]) -> Response:
    """Rank up to 10,000 documents; long ones by the best piece of their first 4,096 tokens, or as many as asked for."""
    return await rerank(request, await request.body(), version=2)


async def rerank(request: Request, content: bytes, version: int) -> Response:
    """Answer a body of Cohere's."""
    body = parse(_BODY, content)
    if version == 2 and not body.model:
        raise RequestError(400, "invalid request: a model parameter is required for this endpoint.")
    query, documents = check_query(body.query), body.documents or []
    texts = texts_of(documents, body.rank_fields)
    _check_chunks(len(texts), body.max_chunks_per_doc)
    wish = Wish(body.model, query, texts, body.top_n, body.max_chunks_per_doc, body.max_tokens_per_doc)
    if version == 2:
        wish = wish.cut_at(body.max_tokens_per_doc or _V2_TOKENS)
    ranked = await rank(request, wish)
    return answer(content_of(ranked, documents, whole=bool(body.return_documents), version=version))


def content_of(ranked: Ranked, documents: Sequence[Document], *, whole: bool, version: int = 1) -> dict[str, Any]:
    """The answer's object; `whole` gives each document with its result, a string as `{"text": …}`."""
    results: list[dict[str, Any]] = []
    for index, score in ranked.results:
        document = documents[index]
        given = {"document": {"text": document} if isinstance(document, str) else document} if whole else {}
        results.append({"index": index, "relevance_score": score, **given})
    units = -(-len(documents) // DOCUMENTS_PER_UNIT)
    warnings = [COSINE_WARNING] if ranked.by_cosine else []
    return {"id": new_id(), "results": results, "meta": meta({"search_units": units}, warnings, version)}


def texts_of(documents: Sequence[Document], rank_fields: Sequence[str] | None) -> list[str]:
    """What of each document is read: the string, or the values of an object's `rank_fields`, one under the other.

    Raises:
        RequestError: there is nothing to read, with the document's index; too many documents, or one too deep.
    """
    if not documents:
        raise RequestError(400, "invalid request: list of documents must not be empty")
    if len(documents) > MAX_DOCUMENTS:
        raise RequestError(
            400, f"invalid request: number of documents must be at most {MAX_DOCUMENTS} - received {len(documents)}"
        )
    if rank_fields is not None and not rank_fields:
        raise RequestError(400, "invalid request: rank_fields cannot be empty, leave it out to rank by the field text")
    texts: list[str] = []
    for index, document in enumerate(documents):
        if not isinstance(document, str) and _too_deep(document):
            raise RequestError(400, f"invalid request: document at index {index} is nested too deeply")
        text = document if isinstance(document, str) else _joined(document, rank_fields or ("text",))
        if not text.strip():
            raise RequestError(400, f"invalid request: document at index {index} cannot be empty")
        texts.append(text)
    return texts


def _joined(document: dict[str, Any], fields: Sequence[str]) -> str:
    found = [document[field] for field in fields if document.get(field) is not None]
    if not found and document.get("text") is None:
        names = " or a ".join(f"'{field}'" for field in dict.fromkeys((*fields, "text")))
        raise RequestError(400, f"invalid request: document does not have a {names} field")
    found = found or [document["text"]]
    return "\n".join(value if isinstance(value, str) else orjson.dumps(value).decode() for value in found)


def _too_deep(document: dict[str, Any]) -> bool:
    """Whether it can be read but not written: the parser goes deeper than the serializer."""
    try:
        orjson.dumps([[[document]]])  # as far within an answer
    except orjson.JSONEncodeError:
        return True
    return False


def check_query(query: str | None) -> str:
    """The query, if there is one.

    Raises:
        RequestError: it is missing or blank.
    """
    if not query or not query.strip():
        raise RequestError(400, "invalid request: query must not be empty or be only whitespace")
    return query


def _check_chunks(documents: int, chunks: int | None) -> None:
    if chunks is not None and documents * chunks > MAX_CHUNKS:
        raise RequestError(
            400,
            "invalid request: number of total max chunks (number of documents * max chunks per doc) must be less "
            f"than {MAX_CHUNKS} - received {documents * chunks}",
        )
