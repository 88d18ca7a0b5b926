"""Classifying by a hundred examples, against SetFit."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import zip_longest
from typing import Any

import httpx

from benchmarks.speed import servers
from benchmarks.speed.data import classify_sets, read
from benchmarks.speed.harness import BenchmarkError, Line, Options, against, alternate, say
from benchmarks.speed.places import base, own_worker, peer_worker
from benchmarks.speed.talk import Worker

_EXAMPLES, _TEXTS = 100, 96
_IN_PROCESS, _BY_HTTP = "ours", "ours by HTTP"
_FEW_PAIRS = 1
_PEERS: dict[str, int | None] = {"SetFit": None, f"SetFit with num_iterations={_FEW_PAIRS}": _FEW_PAIRS}
"""By name, pairs of each example: all that there are, as it comes, and as few as it takes."""
_WANTED = dict.fromkeys(_PEERS, 20.0)


def measure(options: Options) -> list[Line]:
    """Seconds from examples and texts to the texts' labels."""
    files = classify_sets(options)[0]
    examples, asked = _examples(read(files.train), options.scaled(_EXAMPLES)), read(files.test)[:_TEXTS]
    texts = [row["text"] for row in asked]
    right: dict[str, float] = {}

    def side(name: str, worker: Worker, **given: Any) -> Callable[[int], float]:
        def classify(turn: int) -> float:
            found = worker.ask("classify", examples=examples, texts=texts, **given)
            right[name] = _accuracy(found["labels"], asked)
            return found["seconds"]

        return classify

    with ExitStack() as stack:
        worker = stack.enter_context(own_worker(options, "few_shot"))
        worker.ask("classify", examples=examples, texts=texts)
        server = stack.enter_context(servers.ours(options, {}))
        sides = {_IN_PROCESS: side(_IN_PROCESS, worker), _BY_HTTP: _by_http(server.url, examples, asked, right)}
        sides[_BY_HTTP](-1)
        try:
            peer = stack.enter_context(peer_worker(options, "setfit", "few_shot", str(base())))
            for name, pairs in _PEERS.items():
                sides[name] = side(name, peer, pairs=pairs)
        except BenchmarkError as error:
            say(f"SetFit is left out: {error}")
        found = alternate(sides, options)
    work = f"classify by {len(examples)} examples, {files.name}, {len(texts)} texts"
    lines: list[Line] = []
    for mine, where in ((_IN_PROCESS, ""), (_BY_HTTP, ", by HTTP")):
        for name in (peer for peer in _PEERS if peer in found):
            note = f"accuracy {right[mine]:.3f}, theirs {right[name]:.3f}"
            both = {mine: found[mine], name: found[name]}
            lines += against(both, mine, _WANTED, work=work + where, unit="s", less=True, note=note)
    return lines


def _examples(rows: list[dict[str, Any]], number: int) -> list[tuple[str, str]]:
    """Texts with labels, as many of each label as there are up to an equal share, at least two."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row["label"], []).append(row["text"])
    groups = {label: texts for label, texts in groups.items() if len(texts) >= 2}
    turns = [
        (text, label) for texts in zip_longest(*groups.values()) for text, label in zip(texts, groups, strict=True)
    ]
    return [(text, label) for text, label in turns if text is not None][: max(number, 2 * len(groups))]


def _by_http(
    url: str, examples: list[tuple[str, str]], asked: list[dict[str, Any]], right: dict[str, float]
) -> Callable[[int], float]:
    def classify(turn: int) -> float:
        # Other examples in each turn, since the server remembers the heads it has fitted.
        given = [
            {"text": f"{text} {turn}" if not number else text, "label": label}
            for number, (text, label) in enumerate(examples)
        ]
        body = {"examples": given, "inputs": [row["text"] for row in asked]}
        began = time.perf_counter()
        answer = httpx.post(f"{url}/v1/classify", json=body, timeout=120).raise_for_status().json()
        taken = time.perf_counter() - began
        right[_BY_HTTP] = _accuracy([item["prediction"] for item in answer["classifications"]], asked)
        return taken

    return classify


def _accuracy(labels: list[str], asked: list[dict[str, Any]]) -> float:
    return sum(label == row["label"] for label, row in zip(labels, asked, strict=True)) / len(asked)
