"""POST /classify and /predict: a text's labels in vLLM's and in TEI's words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Discriminator, Field, Tag, TypeAdapter
from starlette.responses import Response

from serving.cohere.classify import ClassifyBody
from serving.cohere.classify import classify as classify_cohere
from serving.cohere.wire import answer, parse
from serving.dialects.rerank import log_odds, score_pairs
from serving.dialects.wire import Texts, listing
from serving.errors import RequestError
from serving.resolve import find_model, name_of, scorer_of
from serving.schema import Reads

if TYPE_CHECKING:
    from serving.scoring import Scores

MAX_TEXTS = 10_000

router = APIRouter()


class PoolingBody(BaseModel):
    """vLLM's request."""

    model: str | None = None
    input: Texts | None = None


def _which(inputs: Any) -> str:
    return "batch" if isinstance(inputs, list) and list in map(type, cast(list[Any], inputs)) else "one"


class PredictBody(BaseModel):
    """TEI's request: a text, a pair, or a batch of single texts and pairs each in a list."""

    model: str | None = None
    inputs: Annotated[
        Annotated[Texts, Tag("one")] | Annotated[list[Texts], Field(fail_fast=True), Tag("batch")],
        Discriminator(_which),
    ]
    raw_scores: bool | None = None


_CLASSIFY, _PREDICT = TypeAdapter(PoolingBody), TypeAdapter(PredictBody)


@router.post("/classify")
async def classify(request: Annotated[Request, Reads(PoolingBody | ClassifyBody)]) -> Response:
    """Classify as vLLM does, or as Cohere does, whose SDK 5.0 to 5.7 comes here when its base URL has no `/v1`."""
    body = parse(_CLASSIFY, await request.body())
    if body.input is None:
        return await classify_cohere(request)
    scores, name = await _classified(request, body.model, body.input)
    data: list[dict[str, Any]] = [
        {"index": index, "label": scores.labels[int(np.argmax(row))], "probs": row, "num_classes": len(row)}
        for index, row in enumerate(scores.probabilities.tolist())
    ]
    return answer(listing(name, data, scores.tokens))


@router.post("/predict")
async def predict(request: Annotated[Request, Reads(PredictBody)]) -> Response:
    """All labels of each text, best first; of a pair, how relevant the second text is to the first."""
    body = parse(_PREDICT, await request.body())
    single = isinstance(body.inputs[0], str) if body.inputs else True
    batch = cast(list[list[str]], [body.inputs] if single else body.inputs)
    for index, texts in enumerate(batch):
        if not 1 <= len(texts) <= 2:
            raise RequestError(400, f"invalid request: input {index} has {len(texts)} texts; expected 1 or 2")
    alone = {place: texts[0] for place, texts in enumerate(batch) if len(texts) == 1}
    pairs = {place: (texts[0], texts[1]) for place, texts in enumerate(batch) if len(texts) == 2}
    answers: list[list[dict[str, Any]]] = [[] for _ in batch]
    if alone:
        scores, _ = await _classified(request, body.model, list(alone.values()))
        for place, row in zip(alone, scores.probabilities.tolist(), strict=True):
            answers[place] = _labelled(scores, row, raw=bool(body.raw_scores))
    if pairs:
        found = await score_pairs(request, body.model, list(pairs.values()))
        for place, (_, value) in zip(pairs, found.results, strict=True):
            answers[place] = [{"score": log_odds(value) if body.raw_scores else value, "label": "relevant"}]
    return answer(answers[0] if single else answers)


def _labelled(scores: "Scores", row: Sequence[float], *, raw: bool) -> list[dict[str, Any]]:
    """Labels with probabilities, or with what would be there before softmax (up to a constant) or sigmoid."""
    shown = list(row)
    if raw:
        shown = [float(np.log(max(p, 1e-12))) if scores.thresholds is None else log_odds(p) for p in row]
    best_first = sorted(range(len(row)), key=lambda k: -row[k])
    return [{"score": shown[k], "label": scores.labels[k]} for k in best_first]


async def _classified(request: Request, name: str | None, texts: list[str]) -> "tuple[Scores, str]":
    """Scores, and the name of the model that gave them."""
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise RequestError(400, f"invalid request: expected 1 to {MAX_TEXTS} texts - received {len(texts)}")
    if "" in texts:
        raise RequestError(400, f"invalid request: text {texts.index('')} is empty")
    model = await find_model(request, name, "classify")
    if model is None:
        raise RequestError(
            400,
            "invalid request: the base model has no labels; name a fine-tuned model, or set ENCORE_DEFAULT_CLASSIFIER",
        )
    return await scorer_of(request).classify(model, texts, "END"), name or name_of(request, model)
