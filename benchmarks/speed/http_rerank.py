"""Rerank requests by HTTP from 16 clients at once, against infinity-emb's server."""

from contextlib import ExitStack
from pathlib import Path

from benchmarks.speed import models, servers
from benchmarks.speed.data import pages, rankings
from benchmarks.speed.harness import BenchmarkError, Line, Options, against, alternate, say
from benchmarks.speed.places import own_worker
from benchmarks.speed.talk import Worker, WorkerError

_CLIENTS, _DOCUMENTS, _SECONDS = 16, 20, 8.0
_ENGINES = ("torch", "optimum")


def measure(options: Options) -> list[Line]:
    """Requests a second, and how long the slowest of a hundred takes."""
    name, rows = rankings(options)
    bodies = [
        {"model": "ranker", "query": query, "documents": documents} for query, documents in pages(rows, _DOCUMENTS)
    ]
    seconds = _SECONDS * options.size
    sides: dict[str, servers.Asked] = {}
    with ExitStack() as stack:
        generator = stack.enter_context(own_worker(options, "load"))
        mine = stack.enter_context(servers.ours(options, {"ranker": models.reranker(options)}))
        sides["ours"] = servers.Asked(generator, f"{mine.url}/v1/rerank", bodies, _CLIENTS, seconds)
        folder = models.cross_encoder(options)
        for engine in _ENGINES:
            try:
                model = folder if engine == "torch" else models.onnx(options)
                sides[f"infinity-emb, {engine}"] = _peer(options, stack, generator, model, engine, bodies, seconds)
            except (BenchmarkError, WorkerError) as error:
                say(f"infinity-emb, {engine} is left out: {error}")
        found = alternate(sides, options)
    work = f"HTTP rerank, {name}, {_CLIENTS} clients, {_DOCUMENTS} documents each"
    lines = against(found, "ours", dict.fromkeys(found, 3.0), work=work, unit="requests/s")
    slowest = {side: [asked.p99] for side, asked in sides.items()}
    return lines + against(slowest, "ours", dict.fromkeys(found, 1.0), work=f"{work}, p99", unit="ms", less=True)


def _peer(
    options: Options,
    stack: ExitStack,
    generator: Worker,
    folder: Path,
    engine: str,
    bodies: list[dict[str, object]],
    seconds: float,
) -> servers.Asked:
    server = stack.enter_context(servers.infinity(options, folder, engine))
    return servers.Asked(generator, f"{server.url}/rerank", bodies, _CLIENTS, seconds)
