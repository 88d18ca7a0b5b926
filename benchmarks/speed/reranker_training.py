"""Fine-tuning a cross-encoder listwise, against sentence-transformers' trainer with the same loss."""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.speed.data import GROUP, learning, read
from benchmarks.speed.harness import Line, Options, against, alternate
from benchmarks.speed.places import base, own_worker, peer_worker
from benchmarks.speed.talk import Worker
from training.ranks import ranking_figures

_QUERIES, _BATCH = 64, 8
"""Of one turn, in one pass; a step is of so many."""
_ALL = 10_000
_KINDS = {"CrossEncoderTrainer, ListNetLoss": False, "CrossEncoderTrainer, ListNetLoss, bf16": True}
"""By name, whether it trains in bfloat16."""


def speed(options: Options) -> list[Line]:
    """Queries a second of training, each with the same up to `GROUP` documents on every side."""
    name, part, held = learning(options, options.scaled(_QUERIES))
    few = options.work / f"{name}-few-queries.jsonl"
    few.write_text("\n".join(held.read_text(encoding="utf-8").splitlines()[:8]) + "\n", encoding="utf-8")
    with ExitStack() as stack:
        mine = stack.enter_context(own_worker(options, "trainer"))
        peer = stack.enter_context(peer_worker(options, "setfit", "cross_encoder_trainer", str(base())))
        sides: dict[str, Callable[[int], float]] = {
            "ours": lambda turn: train(options, mine, part, few, turn)["rows_per_second"]
        }
        for kind, bf16 in _KINDS.items():
            sides[kind] = _theirs(peer, part, bf16)
        train(options, mine, part, few, 99)
        found = alternate(sides, options)
    work = f"reranker fine-tuning, {name}, {_BATCH} queries a step, up to {GROUP} documents each"
    return against(found, "ours", dict.fromkeys(list(_KINDS)[:1], 2.0), work=work, unit="queries/s")


def quality(options: Options) -> list[Line]:
    """ndcg@10 on held-out queries after one epoch, with several seeds."""
    name, file, held = learning(options, _ALL if options.size >= 1 else options.scaled(_QUERIES))
    grades = [[1.0] * len(row["relevant_passages"]) + [0.0] * len(row["hard_negatives"]) for row in read(held)]
    found: dict[str, list[float]] = {"ours": [], **{kind: [] for kind in _KINDS}}
    with ExitStack() as stack:
        mine = stack.enter_context(own_worker(options, "trainer"))
        peer = stack.enter_context(peer_worker(options, "setfit", "cross_encoder_trainer", str(base())))
        for seed in range(1, options.seeds + 1):
            found["ours"].append(train(options, mine, file, held, seed)["ndcg@10"])
            for kind, bf16 in _KINDS.items():
                peer.ask("train", train=str(file), batch=_BATCH, steps=-1, bf16=bf16, seed=seed)
                scores = peer.ask("score", held=str(held))
                found[kind].append(ranking_figures(scores, grades, [()] * len(grades))["ndcg@10"])
    return against(found, "ours", {}, work=f"reranker fine-tuning, {name}, one epoch, ndcg@10", unit="ndcg@10")


def train(options: Options, worker: Worker, file: Path, held: Path, seed: int) -> dict[str, Any]:
    """One epoch by our command: queries a second of the optimiser steps, and ndcg@10."""
    folder = options.work / "training"
    shutil.rmtree(folder, ignore_errors=True)
    flags = ["--config", "configs/rerank/minilm.yaml", "--cross_layers", "null", "--negatives.mining", "none"]
    flags += ["--train_file", str(file), "--eval_file", str(held), "--output_dir", str(folder), "--epochs", "1"]
    taken = worker.ask("train", flags=[*flags, "--batch_size", str(_BATCH), "--seed", str(seed)])
    figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    rate = figures["train"]["rows"] * figures["train"]["epochs"] / taken["steps"]
    return {"rows_per_second": rate, "ndcg@10": figures["eval"]["ndcg@10"]}


def _theirs(peer: Worker, file: Path, bf16: bool) -> Callable[[int], float]:
    given = {"train": str(file), "batch": _BATCH, "steps": -1, "bf16": bf16}
    return lambda turn: peer.ask("train", **given, seed=turn)["rows_per_second"]
