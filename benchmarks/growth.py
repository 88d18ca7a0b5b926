"""What a training row costs as files grow: reading, encoding, ordering, collating, a fixed number of steps, memory.

    python -m benchmarks.growth --work runs/growth --rows 1000 10000 100000 1000000

Rows are made: random words from one list, of equal length, about 24 tokens each, under twenty labels. Each size is
measured in processes of its own, in turn with the others, by the code that `python -m training.train` runs:

reading     the file to cleaned rows, split, as a run begins with them
encoding    those rows to the Arrow file of the run; the first time, nothing to be reused
order       the batches of one epoch
collating   every batch of the epoch as the tensors of a step, in that order, without the step
training    one epoch of 16 steps over 512 rows drawn from the whole file, with its evaluation and its saved state

Small files are read, encoded and collated again and again, so that a time is that of 20,000 rows at least. Of memory
there is the most that reading takes, and what encoding and an epoch add to that in the end, pages of files left out.
Medians go into benchmarks/growth.json; the table in docs/performance.md is written from that file.
"""

import argparse
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import Accelerator

from benchmarks.quality import HERE, include
from training.batches import collate, epoch_batches, shares
from training.checkpoint import Checkpoint
from training.config import TrainConfig
from training.engine import Engine, Limits
from training.loop import Loop
from training.model import build_network
from training.progress import Reporter
from training.recipe import resolve
from training.run import describe, open_task
from training.run_folder import RunFolder
from training.store import ExampleStore
from training.task import Data
from training.tether import Tether

_WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend"
).split()
_LENGTH, _LABELS = 22, 20
_ENOUGH = 20_000
"""Rows to be seen for a time that can be trusted."""
_BATCH, _STEPS = 32, 16
PARTS = ("reading", "encoding", "order", "collating", "training")


def make_rows(path: Path, count: int) -> Path:
    """A file of labelled texts of equal length, unless it is there."""
    if not path.exists():
        rng = random.Random(count)
        with path.open("w", encoding="utf-8") as file:
            for number in range(count):
                text = " ".join(rng.choices(_WORDS, k=_LENGTH))
                file.write(json.dumps({"text": text, "label": f"label {number % _LABELS}"}) + "\n")
    return path


def timed(work: Callable[[], Any], turns: int = 1) -> tuple[float, Any]:
    """Seconds of one turn, and what the last one gave."""
    began, found = time.perf_counter(), None
    for _ in range(turns):
        found = None  # what one turn gave is not to lie beside what the next one gives
        found = work()
    return (time.perf_counter() - began) / turns, found


def measure(count: int, work: Path) -> dict[str, float]:
    """Seconds a row or a step, and bytes, of a file of so many rows; in this process."""
    output, turns = work / f"run-{count}", max(1, _ENOUGH // count)
    shutil.rmtree(output, ignore_errors=True)
    file = make_rows(work / f"rows-{count}.jsonl", count)
    config = TrainConfig(
        train_file=str(file), output_dir=str(output), batch_size=_BATCH, epochs=1, freeze_embeddings=True
    )
    accelerator, folder = Accelerator(cpu=True, mixed_precision="no"), RunFolder(output)
    before = psutil.Process().memory_info().rss
    reading, (data, task) = timed(lambda: open_task(config), turns)
    read = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    config, checkpoint = prepare(config, data)
    engine = Engine.on_torch(checkpoint, accelerator.device)
    rows, before = len(data.train), own_memory()

    def encode() -> ExampleStore:
        folder.tokens("train").unlink(missing_ok=True)
        return task.prepared(data.train, engine.encoder, folder.tokens("train"))

    with folder.claim(config):
        encoding, train = timed(encode, turns)
        data.train.clear()
        ordering, order = timed(lambda: epoch_batches(train.lengths, _BATCH, 0, 0), turns)
        collating, _ = timed(lambda: whole_epoch(train, order), turns)
        added = own_memory() - before
        loop = Loop(config, accelerator, task, engine, checkpoint, Tether())
        reporter = Reporter(folder, task.columns, accelerator=accelerator)
        held = task.examples(data.eval[:_BATCH], engine.encoder)
        training, _ = timed(lambda: loop.run(spread(train), held, folder, reporter))
        stored = folder.tokens("train").stat().st_size
    shutil.rmtree(output)
    found: dict[str, float] = {
        "rows": count,
        "reading": reading / count,
        "encoding": encoding / rows,
        "order": ordering / rows,
    }
    found |= {"collating": collating / rows, "training": training / _STEPS, "tokens on disk": stored}
    return found | {"memory of reading": read, "memory added": added}


def own_memory() -> int:
    """Bytes of this process that are not pages of files."""
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared


def prepare(config: TrainConfig, data: Data) -> tuple[TrainConfig, Checkpoint]:
    """Settings and network as a run begins with them, the same for every number of rows."""
    start = build_network(config, data.labels, 1000)
    chosen = {"pooling": start.network.pooling, "precision": "float32"}
    hidden = start.network.backbone.config.hidden_size
    config = config.model_copy(update=data.resolved() | chosen)
    config = resolve(config, rows=1000, hidden=hidden, max_length=256, on_gpu=False)
    return config, Checkpoint(start.network, start.tokenizer, describe(config, data, start.network))


def whole_epoch(train: ExampleStore, order: list[Any]) -> None:
    """Make the tensors of all its batches."""
    limits, device = Limits(max_tokens=8192, max_items=1_000_000), torch.device("cpu")
    for batch in order:
        for part in shares([train[i] for i in batch.tolist()], limits, 1)[0]:
            collate(part, 0, device)


def spread(train: ExampleStore) -> ExampleStore:
    """As many rows as the steps take, from all over the file."""
    drawn = np.linspace(0, len(train) - 1, _STEPS * _BATCH).astype(np.int64)
    starts, codes, weights = np.arange(len(drawn) + 1), train.codes[drawn], train.weights[drawn]
    return replace(train, items=train.items.take(drawn), starts=starts, codes=codes, weights=weights)


def table(records: list[dict[str, float]]) -> str:
    """As Markdown: what a row takes, and how often the smallest file's that is."""
    lines = [
        "| rows | reading | encoding | order | collating | all four, to the first line | a training step "
        "| to the first line | memory of reading | added by encoding and an epoch | tokens on disk |",
        "| ---: " * 11 + "|",
    ]
    first = records[0]
    for found in records:
        parts = [f"{found[part] * 1e6:.1f} µs" for part in PARTS[:-1]]
        whole = sum(found[part] for part in PARTS[:-1]) / sum(first[part] for part in PARTS[:-1])
        cells = [f"{found['rows']:,.0f}", *parts, f"{whole:.2f}", f"{found['training'] * 1e3:.0f} ms"]
        cells.append(f"{found['training'] / first['training']:.2f}")
        cells += [f"{found[name] / 1e6:,.0f} MB" for name in ("memory of reading", "memory added", "tokens on disk")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every size in turn, write the medians and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3, help="processes of each size")
    parser.add_argument("--work", type=Path, required=True, help="folder for files and runs")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.one:
        sys.stdout.write(json.dumps(measure(options.one, options.work)) + "\n")
        return
    found: dict[int, list[dict[str, float]]] = {count: [] for count in sorted(options.rows)}
    for _ in range(options.repeats):
        for count, records in found.items():
            command = [sys.executable, "-m", "benchmarks.growth", "--work", str(options.work), "--one", str(count)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            records.append(json.loads(done.stdout.splitlines()[-1]))
    medians = [
        {name: statistics.median(record[name] for record in records) for name in records[0]}
        for records in found.values()
    ]
    (HERE / "growth.json").write_text(json.dumps(medians, indent=1) + "\n")
    text = table(medians)
    sys.stdout.write(text + "\n")
    include(text, HERE.parent / "docs/performance.md", "growth")


if __name__ == "__main__":
    main()
