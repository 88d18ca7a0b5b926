"""POST /v1/classify (Cohere API reference, Classify)."""

from collections import Counter
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, TypeAdapter
from starlette.responses import Response

from serving.cohere.wire import answer, meta, parse
from serving.errors import RequestError
from serving.names import new_id
from serving.resolve import find_model, scorer_of
from serving.schema import Reads

MAX_INPUTS = 96
MAX_EXAMPLES = 2500

router = APIRouter()


class ExampleBody(BaseModel):
    """One example; both fields are optional in the SDK's type, neither is in effect."""

    text: str | None = None
    label: str | None = None


class ClassifyBody(BaseModel):
    """The request. The SDK sends null for what was given as None, and may send fields that are not listed.

    Reading stops at the first wrong element: a body of megabytes would otherwise make millions of complaints.
    """

    inputs: list[str] | None = Field(None, fail_fast=True)
    examples: list[ExampleBody] | None = Field(None, fail_fast=True)
    model: str | None = None
    truncate: Literal["NONE", "START", "END"] | None = None
    preset: str | None = None


_BODY = TypeAdapter(ClassifyBody)


@router.post("/v1/classify")
@router.post("/v1/v1/classify", include_in_schema=False)
async def classify(request: Annotated[Request, Reads(ClassifyBody)]) -> Response:
    """Classify up to 96 texts, with a fine-tuned model or by examples.

    The alias is where the SDK ends up when its base URL has `/v1` in it.
    """
    body = parse(_BODY, await request.body())
    inputs, examples = _check_inputs(body.inputs), body.examples or []
    model = await find_model(request, body.model, "classify")
    truncate = body.truncate or "END"
    if model is None or examples:
        # With examples the labels are theirs, also when a fine-tuned model is named.
        scores = await scorer_of(request).classify_by_examples(_check_examples(examples), inputs, truncate)
    else:
        scores = await scorer_of(request).classify(model, inputs, truncate)
    if scores.thresholds is None:
        items = _single_label(inputs, scores.labels, scores.probabilities)
    else:
        items = _multi_label(inputs, scores.labels, scores.probabilities, scores.thresholds)
    warnings = ["preset is deprecated and was ignored"] if body.preset else []
    content = {
        "id": new_id(),
        "classifications": items,
        "meta": meta({"classifications": len(inputs)}, warnings),
    }
    return answer(content, {"X-API-Warning": warnings[0]} if warnings else None)


def _check_inputs(inputs: list[str] | None) -> list[str]:
    count = len(inputs or ())
    if not inputs:
        raise RequestError(400, f"invalid request: total number of texts must be at least 1 - received {count}")
    if count > MAX_INPUTS:
        raise RequestError(
            400, f"invalid request: total number of texts must be at most {MAX_INPUTS} - received {count}"
        )
    if "" in inputs:
        index = inputs.index("")
        raise RequestError(
            400, f"invalid request: inputs contains an element that is the empty string at index {index}"
        )
    return inputs


def _check_examples(examples: list[ExampleBody]) -> list[tuple[str, str]]:
    """Text and label of each."""
    if len(examples) > MAX_EXAMPLES:
        raise RequestError(
            400,
            f"invalid request: total number of examples must be at most {MAX_EXAMPLES} - received {len(examples)}",
        )
    pairs: list[tuple[str, str]] = []
    for index, example in enumerate(examples):
        if not example.text or not example.label:
            missing = "label" if example.text else "text"
            raise RequestError(
                400, f"invalid request: examples contains an element without a {missing} at index {index}"
            )
        pairs.append((example.text, example.label))
    counts = Counter(label for _, label in pairs)
    if len(counts) < 2:
        raise RequestError(400, f"invalid request: min classes for classify request is 2 - received {len(counts)}")
    if few := sorted(label for label, count in counts.items() if count < 2):
        raise RequestError(
            400,
            "invalid request: each unique label must have at least 2 examples. "
            f"Not enough examples for: {', '.join(few)}",
        )
    return pairs


def _single_label(inputs: list[str], labels: tuple[str, ...], probabilities: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    best = np.argmax(probabilities, axis=1).tolist()
    for text, row, top in zip(inputs, probabilities.tolist(), best, strict=True):
        items.append(
            {
                "id": new_id(),
                "input": text,
                "classification_type": "single-label",
                "prediction": labels[top],
                "predictions": [labels[top]],
                "confidence": row[top],
                "confidences": [row[top]],
                "labels": {label: {"confidence": p} for label, p in zip(labels, row, strict=True)},
            }
        )
    return items


def _multi_label(
    inputs: list[str], labels: tuple[str, ...], probabilities: Any, thresholds: tuple[float, ...]
) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for text, row in zip(inputs, probabilities.tolist(), strict=True):
        reached = [i for i, (p, threshold) in enumerate(zip(row, thresholds, strict=True)) if p >= threshold]
        reached.sort(key=lambda i: -row[i])
        items.append(
            {
                "id": new_id(),
                "input": text,
                "classification_type": "multi-label",
                "predictions": [labels[i] for i in reached],
                "confidences": [row[i] for i in reached],
                "labels": {label: {"confidence": p} for label, p in zip(labels, row, strict=True)},
            }
        )
    return items
