"""Classifies by examples in process, as the server does: embeddings of the base and a linear head."""

import time
from typing import Any

from benchmarks.speed.talk import answer
from training.engine import Engine
from training.hub import EMBEDDED
from training.probe import fit_probe


def classify(examples: list[tuple[str, str]], texts: list[str]) -> dict[str, Any]:
    """Learn from texts with labels, then label others: seconds, and the labels."""
    began = time.perf_counter()
    embeddings = engine.score(engine.encode([text for text, _ in examples]))
    probe = fit_probe(embeddings, [label for _, label in examples])
    found = probe.probabilities(engine.score(engine.encode(texts))).argmax(axis=1)
    return {"seconds": time.perf_counter() - began, "labels": [probe.labels[number] for number in found]}


if __name__ == "__main__":
    engine = Engine.load_embedder(EMBEDDED)
    answer({"classify": classify})
