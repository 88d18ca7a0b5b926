"""How much a stream of 1,000-document reranks slows down one-text classify requests on the same server.

    python benchmarks/mixed_load.py

Starts a server of its own, with the embedded base for both: classify by examples (whose head is remembered, so that a
request is one forward pass), rerank by cosine. First classify alone, then classify while reranks follow one another.
"""

import csv
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "scripts"))

from demo import SAMPLE, server  # noqa: E402  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

DOCUMENTS, SECONDS = 1_000, 20.0


def tickets() -> list[dict[str, str]]:
    """The sample rows of the project."""
    with (SAMPLE / "train.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def classify_times(client: httpx.Client, seconds: float) -> list[float]:
    """One request after the other; how long each took."""
    rows, times = tickets(), list[float]()
    examples = [{"text": row["text"], "label": row["label"]} for row in rows[:60]]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        body = {"inputs": [rows[len(times) % len(rows)]["text"]], "examples": examples}
        began = time.perf_counter()
        client.post("/v1/classify", json=body).raise_for_status()
        times.append(time.perf_counter() - began)
    return times


def rerank_until(url: str, stop: threading.Event, done: list[float]) -> None:
    """Rerank 1,000 different documents again and again; notes how long each request took."""
    texts = [row["text"] for row in tickets()]
    documents = [f"{texts[i % len(texts)]} ({i})" for i in range(DOCUMENTS)]
    with httpx.Client(base_url=url, timeout=600) as client:
        while not stop.is_set():
            began = time.perf_counter()
            client.post("/v1/rerank", json={"query": "my parcel is late", "documents": documents}).raise_for_status()
            done.append(time.perf_counter() - began)


def summary(times: list[float]) -> dict[str, Any]:
    """Milliseconds."""
    ordered = sorted(times)
    return {
        "requests": len(times),
        "median_ms": round(statistics.median(times) * 1e3, 1),
        "p95_ms": round(ordered[int(len(ordered) * 0.95)] * 1e3, 1),
        "max_ms": round(ordered[-1] * 1e3, 1),
    }


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as home, server(os.environ | {"ENCORE_HOME": home}) as url:
        with httpx.Client(base_url=url, timeout=600) as client:
            classify_times(client, 3)  # loads the model, fits the head
            idle = classify_times(client, SECONDS)
            stop, done = threading.Event(), list[float]()
            thread = threading.Thread(target=rerank_until, args=(url, stop, done))
            thread.start()
            time.sleep(2)
            mixed = classify_times(client, SECONDS)
            stop.set()
            thread.join()
    result: dict[str, Any] = {"idle": summary(idle), "under reranks": summary(mixed)}
    result["rerank_seconds"] = round(statistics.median(done), 2)
    result["ratio of medians"] = round(statistics.median(mixed) / statistics.median(idle), 2)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
