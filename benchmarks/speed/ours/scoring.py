"""Scores with one checkpoint by the engine."""

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.talk import answer
from training.engine import Engine, Ranking


def rank(asked: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Score the documents of queries, one query after the other: seconds, tokens, scores."""
    began, scores, tokens, work = time.perf_counter(), list[list[float]](), 0, 0.0
    for query, documents in asked:
        ranking = Ranking.plan(engine.encoder, engine.manifest, query, documents)
        scores.append(ranking.relevance(engine.score(ranking.items)).tolist())
        tokens += sum(map(len, ranking.items))
        work += sum(len(item) ** 2 for item in ranking.items)
    return {"seconds": time.perf_counter() - began, "tokens": tokens, "squares": work, "scores": scores}


def sort(texts: list[str], times: int) -> dict[str, Any]:
    """Classify texts, all of them at once: seconds of each time."""
    taken: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        engine.probabilities(engine.score(engine.encode(texts)))
        taken.append(time.perf_counter() - began)
    return {"seconds": taken}


if __name__ == "__main__":
    precision: Any = sys.argv[2] if len(sys.argv) > 2 else "auto"
    engine = Engine.load(Path(sys.argv[1]), precision=precision)
    answer({"rank": rank, "sort": sort})
