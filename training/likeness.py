"""How alike queries and passages are without any training: by their words, or by the encoder."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[list[str]], NDArray[np.floating[Any]]]
"""Turns n texts into an array of n rows; the cosine of two rows is the likeness of their texts."""
Likeness = Iterator[NDArray[np.float32]]
"""For each query in turn, the likeness of every passage of the pool to it."""

_WORD = r"(?u)\w+"


def bm25(queries: list[str], pool: list[str]) -> Likeness:
    """BM25 of each query against a pool of passages, whose words are as rare as they are in the pool."""
    import bm25s  # takes a fifth of a second, which reading the settings of a run need not wait for

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import turns its debug messages on

    def words(texts: list[str]) -> list[list[str]]:
        found = bm25s.tokenize(texts, token_pattern=_WORD, stopwords=[], return_ids=False, show_progress=False)
        return cast(list[list[str]], found)

    index = bm25s.BM25()
    index.index([tokens or [""] for tokens in words(pool)], show_progress=False)  # it refuses an empty vocabulary
    none = np.zeros(len(pool), dtype=np.float32)
    for tokens in words(queries):
        yield index.get_scores(tokens) if tokens else none


def cosine(queries: list[str], pool: list[str], embed: Embed) -> Likeness:
    """Cosine of each query's embedding with those of a pool of passages."""

    def directions(texts: list[str]) -> NDArray[np.float32]:
        vectors = np.asarray(embed(texts), dtype=np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    passages = directions(pool)
    for query in directions(queries):
        yield passages @ query
