"""Whether a document costs the same in a request of one and in a request of a thousand."""

import statistics
import time

import httpx
from tokenizers import Tokenizer

from benchmarks.speed import models, servers
from benchmarks.speed.data import rankings
from benchmarks.speed.harness import Line, Options, against, alternate
from benchmarks.speed.places import base

_SIZES = (1, 10, 100, 1000)
_REFERENCE = 100
_DOCUMENTS = 400
"""Documents of one turn, in as many requests as they make; more only where a single request has more."""


def measure(options: Options) -> list[Line]:
    """Tokens a second of one client, whose documents have equal lengths."""
    tokenizer = Tokenizer.from_file(str(base() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _, rows = rankings(options)
    query, words = rows[0].query, max(rows[0].passages, key=len)
    sizes = [size for size in _SIZES if size <= _REFERENCE or options.size >= 1]
    with (
        servers.ours(options, {"ranker": models.reranker(options)}) as server,
        httpx.Client(base_url=server.url, timeout=600) as client,
    ):

        def ask(size: int, turn: int) -> float:
            taken, tokens = list[float](), 0
            for number in range(max(1, options.scaled(_DOCUMENTS) // size)):
                documents = [f"{turn:02} {number:03} {i:04} {words}" for i in range(size)]
                body = {"model": "ranker", "query": query, "documents": documents}
                began = time.perf_counter()
                client.post("/v1/rerank", json=body).raise_for_status()
                taken.append(time.perf_counter() - began)
                tokens = sum(len(one.ids) for one in tokenizer.encode_batch([(query, text) for text in documents]))
            return tokens / statistics.median(taken)

        ask(1, 99)
        found = alternate({f"{size} documents": lambda turn, size=size: ask(size, turn) for size in sizes}, options)
    lines: list[Line] = []
    reference = found.pop(f"{_REFERENCE} documents")
    for side, values in found.items():
        both = {side: values, f"{_REFERENCE} documents a request": reference}
        lines += against(both, side, dict.fromkeys(both, 0.85), work=f"HTTP rerank, {side} a request", unit="tokens/s")
    return lines
