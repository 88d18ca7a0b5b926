"""Classify requests by HTTP from 64 clients at once, one short text each, against the engine in process."""

import statistics

from benchmarks.speed import models, servers
from benchmarks.speed.data import texts
from benchmarks.speed.harness import Line, Options, against, alternate
from benchmarks.speed.places import own_worker

_CLIENTS, _SECONDS, _TEXTS = 64, 4.0, 512


def measure(options: Options) -> list[Line]:
    """Texts a second; the load generator takes its share of the same cores, which the note tells."""
    asked = texts(options)[: options.scaled(_TEXTS)]
    checkpoint = models.classifier(options)
    with (
        own_worker(options, "load") as generator,
        own_worker(options, "scoring", str(checkpoint)) as engine,
        servers.ours(options, {"sorter": checkpoint}) as server,
    ):
        bodies = [{"model": "sorter", "inputs": [text]} for text in asked]
        mine = servers.Asked(generator, f"{server.url}/v1/classify", bodies, _CLIENTS, _SECONDS * options.size)

        def in_process(turn: int) -> float:
            taken = engine.ask("sort", texts=asked, times=3)["seconds"]
            return len(asked) / statistics.median(taken)

        in_process(0)
        found = alternate({"ours": mine, "the engine in process, all texts at once": in_process}, options)
    note = f"the load generator takes {statistics.median(mine.cpu):.0%} of a core; p99 {mine.p99:.0f} ms"
    work = f"HTTP classify, {_CLIENTS} clients, one text each"
    return against(found, "ours", dict.fromkeys(found, 0.8), work=work, unit="texts/s", note=note)
