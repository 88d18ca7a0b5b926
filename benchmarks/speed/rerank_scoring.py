"""Scoring a query's hundred documents in process, against every backend of sentence-transformers."""

import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.speed import models
from benchmarks.speed.data import ndcg, rankings
from benchmarks.speed.harness import Line, Options, against, alternate, say
from benchmarks.speed.places import base, own_worker, peer_worker
from benchmarks.speed.talk import Worker, WorkerError
from training.rerank_rows import RerankRow

_QUERIES = 8
"""Of one turn; each turn has others, so that five of them nearly make up the data set."""
_PEERS = {
    "torch": ("torch",),
    "OpenVINO": ("openvino",),
    "ONNX": ("onnx",),
    "OpenVINO, int8 static": ("openvino", "int8"),
    "ONNX, int8 dynamic": ("onnx", "int8"),
}
_PREFIX = "sentence-transformers, "
_FLOAT32 = "ours in float32"
_SHAPE_TOKENS = 2048


@dataclass
class Scorer:
    """One side: a worker, and what it found."""

    worker: Worker
    turns: list[list[RerankRow]]
    scores: dict[int, list[list[float]]] = field(default_factory=dict)
    operations: list[float] = field(default_factory=list)
    """Billions a second, of the real tokens."""

    def __call__(self, turn: int) -> float:
        """Documents a second."""
        asked = [(row.query, row.passages) for row in self.turns[turn]]
        found = self.worker.ask("rank", asked=asked)
        self.scores[turn] = found["scores"]
        if "tokens" in found:
            self.operations.append(_operations(found["tokens"], found["squares"]) / found["seconds"] / 1e9)
        return sum(len(row.passages) for row in self.turns[turn]) / found["seconds"]

    def ndcg(self, turns: Sequence[int]) -> float:
        """Of the queries of some turns."""
        scored = [scores for turn in turns for scores in self.scores[turn]]
        return ndcg(scored, [row for turn in turns for row in self.turns[turn]])


def measure(options: Options) -> list[Line]:
    """Documents a second; ranking quality beside each side's own float32; share of what the machine could do."""
    name, rows = rankings(options)
    count = options.scaled(_QUERIES)
    turns = [[rows[(turn * count + i) % len(rows)] for i in range(count)] for turn in range(options.runs)]
    with ExitStack() as stack:
        limits = stack.enter_context(own_worker(options, "limits"))
        checkpoint = str(models.reranker(options))
        sides: dict[str, Any] = {
            "ours": Scorer(stack.enter_context(own_worker(options, "scoring", checkpoint)), turns),
            _FLOAT32: Scorer(stack.enter_context(own_worker(options, "scoring", checkpoint, "float32")), turns),
        }
        for peer, worker in _peers(options, stack, rows):
            sides[_PREFIX + peer] = Scorer(worker, turns)
        for scorer in sides.values():
            scorer.worker.ask("rank", asked=[(row.query, row.passages) for row in rows[-2:]])  # to warm it up
        scorers = dict(sides)
        sides |= {f"bf16 matrix products, {shape}": _products(limits, made) for shape, made in _shapes().items()}
        found = alternate(sides, options)
    work, fastest = f"rerank scoring, {name}", _fastest(found)
    wanted = {_PREFIX + "torch": 3.0} | ({fastest: 1.2} if fastest else {})
    lines = against({side: found[side] for side in scorers}, "ours", wanted, work=work, unit="pairs/s")
    products = {side: values for side, values in found.items() if side not in scorers}
    bounds = dict.fromkeys(products, 0.75)
    lines += against(
        {"ours": scorers["ours"].operations, **products}, "ours", bounds, work=f"{work}, real tokens", unit="GFLOP/s"
    )
    return lines + _quality(scorers, work)


def _peers(options: Options, stack: ExitStack, rows: Sequence[RerankRow]) -> Iterator[tuple[str, Worker]]:
    """The peers that can be started; one that cannot is reported and left out."""
    folder, calibration = str(models.cross_encoder(options)), str(options.work / "calibration")
    for name, arguments in _PEERS.items():
        given = [*arguments, calibration] if arguments == ("openvino", "int8") else arguments
        worker = stack.enter_context(
            peer_worker(options, "st", "scoring", str(folder), str(options.work.absolute()), *given)
        )
        try:
            if name == "OpenVINO, int8 static":
                texts = [f"{row.query} [SEP] {text}" for row in rows for text in row.passages[:7]]
                worker.ask("calibrate", texts=texts[:300], folder=calibration)
            worker.ask("prepare")
            yield name, worker
        except WorkerError as error:
            say(f"{_PREFIX}{name} is left out: {error}")


def _fastest(found: dict[str, list[float]]) -> str | None:
    """Of the peers' backends but the default one, that with the most documents a second."""
    peers = [side for side in found if side.startswith(_PREFIX) and side != _PREFIX + "torch"]
    return max(peers, key=lambda side: statistics.median(found[side]), default=None)


def _quality(scorers: dict[str, Scorer], work: str) -> list[Line]:
    """Each side's ndcg@10 beside the same model's in float32."""
    lines: list[Line] = []
    for side, scorer in scorers.items():
        exact = _FLOAT32 if side in ("ours", _FLOAT32) else _PREFIX + "torch"
        if side != exact and exact in scorers:
            turns = sorted(scorer.scores.keys() & scorers[exact].scores.keys())
            mine, other = scorer.ndcg(turns), scorers[exact].ndcg(turns)
            lines.append(Line(f"{work}, quality of {side}", "ndcg@10", [mine], exact, [other]))
    return lines


def _products(limits: Worker, shapes: list[list[int]]) -> Any:
    return lambda turn: limits.ask("products", precision="bfloat16", shapes=shapes)


def _shapes() -> dict[str, list[list[int]]]:
    """Products large and square, and those of a layer of the model for a batch of tokens."""
    hidden, inner, _ = _model()
    own = [[_SHAPE_TOKENS, hidden, hidden]] * 4
    own += [[_SHAPE_TOKENS, hidden, inner], [_SHAPE_TOKENS, inner, hidden]]
    return {"2048 × 2048": [[2048, 2048, 2048]], "of the model's shapes": own}


def _operations(tokens: int, squares: float) -> float:
    """Floating-point operations of a pass: the layers' weights on every token, and attention, squared in length.

    The embedding, the normalisations and the head take none worth counting.
    """
    hidden, inner, layers = _model()
    return layers * (tokens * 2 * (4 * hidden**2 + 2 * hidden * inner) + squares * 4 * hidden)


def _model() -> tuple[int, int, int]:
    config = json.loads((base() / "config.json").read_text(encoding="utf-8"))
    return config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
