"""Ranking documents for a query, whichever dialect asks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Self

import numpy as np
from fastapi import Request

from serving.gate import POSTPONE
from serving.resolve import find_model, name_of, scorer_of

COSINE_WARNING = (
    "no fine-tuned reranker was named: relevance scores are cosines of the base model's embeddings, mapped to 0..1"
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants ranked."""

    model: str | None
    query: str
    """Not blank."""
    texts: Sequence[str]
    """Not blank, at least one."""
    top_n: int | None = None
    """How many results to give; all without."""
    chunks: int | None = None
    """Pieces of a long document to score; the scorer's own number without."""
    cut: int | None = None
    """Tokens of a document to read; all without."""

    def cut_at(self, tokens: int) -> Self:
        """Read so many tokens of each document, in as many pieces as they make."""
        return replace(self, cut=tokens, chunks=self.chunks or tokens)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The answer, whatever it will be called on the wire."""

    results: list[tuple[int, float]]
    """Position in the request and relevance from 0 to 1; of `rank` best first, and of equals the earlier one."""
    by_cosine: bool
    """Whether no reranker was named, and the base's embeddings decided."""
    tokens: int
    """Read in all, the query with every document."""
    model: str
    """Whose scores they are."""


async def rank(request: Request, wish: Wish) -> Ranked:
    """Rank.

    Raises:
        RequestError: no such model, one of another task, or a full queue.
    """
    model = await find_model(request, wish.model, "rerank")
    [scores], tokens = await scorer_of(request).rerank(
        model, [(wish.query, wish.texts)], wish.chunks, wish.cut, progress=request.scope[POSTPONE]
    )
    order = np.argsort(-scores, kind="stable")[: wish.top_n].tolist()
    results = [(index, float(scores[index])) for index in order]
    return Ranked(results, model is None, tokens, wish.model or name_of(request, model))


async def compare(request: Request, name: str | None, pairs: Sequence[tuple[str, str]]) -> Ranked:
    """How relevant the second text of each pair is to the first, in the order of `pairs`; errors as of `rank`."""
    model = await find_model(request, name, "rerank")
    places: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        places.setdefault(query, []).append(place)
    asked = [(query, [pairs[place][1] for place in mine]) for query, mine in places.items()]
    scores, tokens = await scorer_of(request).rerank(model, asked, progress=request.scope[POSTPONE])
    found = dict(zip(chain.from_iterable(places.values()), chain.from_iterable(scores), strict=True))
    results = [(place, float(found[place])) for place in range(len(pairs))]
    return Ranked(results, model is None, tokens, name or name_of(request, model))
