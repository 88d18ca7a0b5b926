"""A request's texts to labels with logarithms of their probabilities, for either endpoint."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from pydantic import Field

from serving.errors import RequestError
from serving.gate import POSTPONE
from serving.names import random_word
from serving.openai.models import find_tuned, unknown_model
from serving.openai.wire import Body
from serving.registry import Model
from serving.resolve import scorer_of
from training.manifest import Manifest
from training.text import TextRules

LOWEST = -100.0
"""JSON has no minus infinity; what is less likely is given as this."""
MOST_LABELS = 1000
"""Hosted models tell of 5 or 20 tokens; here all labels' probabilities can be read."""
_TUNED = re.compile(r"ft:.+:([A-Za-z0-9]{8})")


class StreamOptions(Body):
    """What else a stream is to hold."""

    include_usage: bool | None = None


class SamplingBody(Body):
    """What both endpoints take. Of sampling nothing has an effect: the answer is always the most likely label."""

    model: str
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One text's labels, best first, as positions, and the logarithms of their probabilities, none below `LOWEST`."""

    labels: list[int]
    logs: list[float]


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a model says of each text."""

    model: Model
    manifest: Manifest
    logs: NDArray[np.float64]
    """Natural logarithms of the labels' probabilities (texts, labels)."""
    tokens: int
    """Read in all, special ones included."""

    def best(self, count: int) -> Iterator[Ranked]:
        """For each text, in order, its `count` most likely labels, or all where there are fewer; at least one."""
        logs = np.maximum(self.logs, LOWEST)
        order = np.argsort(-logs, axis=1, kind="stable")[:, : max(count, 1)]
        values = np.take_along_axis(logs, order, axis=1)
        return map(Ranked, order.tolist(), values.tolist())

    def envelope(self, prefix: str, kind: str, name: str) -> dict[str, Any]:
        """What an answer, or each event of a stream, begins with.

        Args:
            prefix: of the answer's id.
            kind: the `object`.
            name: of the model, as the client gave it.
        """
        made = _TUNED.fullmatch(self.model.name or "")
        return {
            "id": f"{prefix}-{random_word(24)}",
            "object": kind,
            "created": int(time.time()),
            "model": name,
            "system_fingerprint": f"fp_{made[1] if made else self.model.id[:8]}",
        }

    def usage(self, choices: int) -> dict[str, int]:
        """Tokens read, and one for each label given."""
        return {
            "prompt_tokens": self.tokens,
            "completion_tokens": choices,
            "total_tokens": self.tokens + choices,
        }


async def find_single_label(request: Request, name: str) -> Model:
    """The model of a name.

    Raises:
        RequestError: there is no such model, or it is none that gives a text one label.
    """
    model = await find_tuned(request, name)
    if model.task != "classify":
        reason = f"`{name}` is a {model.task} model and has no labels; ask POST /v1/rerank of this server."
    elif model.problem_type == "multi_label_classification":
        reason = f"`{name}` gives a text any number of labels, not one; ask POST /v1/classify of this server."
    else:
        return model
    raise RequestError(400, reason, param="model", code="model_not_supported")


async def label(request: Request, model: Model, read: Callable[[TextRules], Sequence[str]]) -> Labelled:
    """Classify texts.

    Args:
        request: the request.
        model: of `find_single_label`.
        read: the model's text rules to the texts; may refuse them.

    Raises:
        RequestError: a full queue, a model that cannot be loaded, or what `read` raised.
    """
    scorer = scorer_of(request)
    try:
        manifest = (await scorer.engine(model)).manifest
        logs, tokens = await scorer.log_probabilities(model, read(manifest.rules), progress=request.scope[POSTPONE])
    except RequestError as error:
        if error.status == 404:  # it was removed this moment
            raise unknown_model(model.name or model.public_name) from None
        raise
    return Labelled(model, manifest, logs, tokens)


def chunks(
    envelope: dict[str, Any], choices: Sequence[dict[str, Any]], usage: dict[str, int] | None
) -> Iterator[dict[str, Any]]:
    """The events of a stream: one for each choice, and one with the usage if there is to be one."""
    unknown = {} if usage is None else {"usage": None}
    for choice in choices:
        yield {**envelope, "choices": [choice], **unknown}
    if usage is not None:
        yield {**envelope, "choices": [], "usage": usage}
