"""Fine-tuning a classifier, against transformers' Trainer as its example script sets it up."""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.quality import write_jsonl
from benchmarks.speed.data import Labelled, classify_sets, read
from benchmarks.speed.harness import Line, Options, against, alternate
from benchmarks.speed.places import base, own_worker, peer_worker
from benchmarks.speed.talk import Worker

_ROWS = 320
"""Of one turn, in one pass: a rate needs no more of them."""
_HELD = 32
_EPOCHS = 3
_PADDED = "Trainer, its example's defaults"
_KINDS: dict[str, dict[str, bool]] = {
    _PADDED: {"pad": True, "bf16": False},
    "Trainer, padded by batch": {"pad": False, "bf16": False},
    "Trainer, padded by batch, bf16": {"pad": False, "bf16": True},
}


def speed(batch: int) -> Callable[[Options], list[Line]]:
    """Training of batches of that many rows, on every data set."""

    def measure(options: Options) -> list[Line]:
        with ExitStack() as stack:
            mine = stack.enter_context(own_worker(options, "trainer"))
            peer = stack.enter_context(peer_worker(options, "setfit", "trainer", str(base())))
            return [line for files in classify_sets(options) for line in _rates(options, mine, peer, files, batch)]

    return measure


def quality(options: Options) -> list[Line]:
    """Test accuracy of whole trainings with several seeds, beside it the rates of those."""
    lines: list[Line] = []
    with ExitStack() as stack:
        mine = stack.enter_context(own_worker(options, "trainer"))
        peer = stack.enter_context(peer_worker(options, "setfit", "trainer", str(base())))
        for files in classify_sets(options):
            found: dict[str, list[float]] = {"ours": [], **{kind: [] for kind in _KINDS if kind != _PADDED}}
            for seed in range(1, options.seeds + 1):
                found["ours"].append(train(options, mine, files, 16, _EPOCHS, seed)["accuracy"])
                for kind in list(found)[1:]:
                    asked = {"epochs": _EPOCHS, "steps": -1, "seed": seed, **_KINDS[kind]}
                    given = {"train": str(files.train), "test": str(files.test), "batch": 16}
                    found[kind].append(peer.ask("train", **given, **asked)["accuracy"])
            work = f"classifier fine-tuning, {files.name}, {_EPOCHS} epochs, test accuracy"
            lines += against(found, "ours", {}, work=work, unit="accuracy")
    return lines


def train(options: Options, worker: Worker, files: Labelled, batch: int, epochs: int, seed: int) -> dict[str, Any]:
    """Train by our command: its seconds, rows a second of the optimiser steps, and test accuracy."""
    folder = options.work / "training"
    shutil.rmtree(folder, ignore_errors=True)
    flags = ["--config", "configs/classify/minilm.yaml", "--output_dir", str(folder), "--seed", str(seed)]
    flags += ["--train_file", str(files.train), "--eval_file", str(files.valid), "--test_file", str(files.test)]
    taken = worker.ask("train", flags=[*flags, "--batch_size", str(batch), "--epochs", str(epochs)])
    figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    rate = figures["train"]["rows"] * figures["train"]["epochs"] / taken["steps"]
    return {"rows_per_second": rate, "accuracy": figures["test"]["accuracy"], **taken}


def _rates(options: Options, mine: Worker, peer: Worker, files: Labelled, batch: int) -> list[Line]:
    part = _part(files, options.scaled(_ROWS), options.work)
    rows, whole = len(read(part.train)), list[float]()

    def ours(turn: int) -> float:
        taken = train(options, mine, part, batch, 1, turn)
        whole.append(taken["whole"])
        return taken["rows_per_second"]

    def theirs(kind: str) -> Callable[[int], float]:
        given = {"train": str(part.train), "test": str(part.test), "batch": batch, "epochs": 1, **_KINDS[kind]}
        steps = -(-rows // batch)
        return lambda turn: peer.ask("train", **given, steps=steps, seed=turn)["rows_per_second"]

    train(options, mine, part, batch, 1, 99)
    found = alternate({"ours": ours, **{kind: theirs(kind) for kind in _KINDS}}, options)
    work = f"classifier fine-tuning, {files.name}, batches of {batch}"
    note = f"the whole command took {sorted(whole)[len(whole) // 2]:.1f} s for {rows} rows"
    return against(found, "ours", {_PADDED: 2.0}, work=work, unit="rows/s", note=note)


def _part(files: Labelled, rows: int, work: Path) -> Labelled:
    """The first training rows, and a few of the others, of labels that those have."""
    train = read(files.train)[:rows]
    known = {row["label"] for row in train}
    parts = {"train": write_jsonl(work / f"{files.name}-{rows}-train.jsonl", train)}
    for part in ("valid", "test"):
        others = [row for row in read(getattr(files, part)) if row["label"] in known]
        parts[part] = write_jsonl(work / f"{files.name}-{rows}-{part}.jsonl", others[:_HELD])
    return Labelled(files.name, **parts)
