# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false
"""Trains a cross-encoder listwise with sentence-transformers, and measures its rankings."""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import ListNetLoss

from benchmarks.speed.talk import answer

MAX_LENGTH = 512


def read(path: str) -> list[dict]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def listed(path: str) -> Dataset:
    """Queries with documents and grades, as `ListNetLoss` takes them."""
    rows = read(path)
    documents = [row["relevant_passages"] + row["hard_negatives"] for row in rows]
    grades = [[1.0] * len(row["relevant_passages"]) + [0.0] * len(row["hard_negatives"]) for row in rows]
    return Dataset.from_dict({"query": [row["query"] for row in rows], "docs": documents, "labels": grades})


def train(train: str, batch: int, steps: int, bf16: bool, folder: str = "", seed: int = 42) -> dict[str, float]:
    """One epoch, or `steps` of it; queries a second by the trainer's own clock."""
    torch.manual_seed(seed)
    model = CrossEncoder(BASE, num_labels=1, max_length=MAX_LENGTH, device="cpu")
    with tempfile.TemporaryDirectory() as output:
        arguments = CrossEncoderTrainingArguments(
            output_dir=output,
            num_train_epochs=1,
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=3e-5,
            warmup_ratio=0.1,
            bf16=bf16,
            use_cpu=True,
            seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = CrossEncoderTrainer(model, arguments, train_dataset=listed(train), loss=ListNetLoss(model))
        began = time.perf_counter()
        figures = trainer.train().metrics
    if folder:
        model.save_pretrained(folder)
    global trained
    trained = model
    return {"rows_per_second": figures["train_samples_per_second"], "seconds": time.perf_counter() - began}


def score(held: str) -> list[list[float]]:
    """Scores of each query's documents by the model that was trained last."""
    return [
        trained.predict(
            [(row["query"], text) for text in row["relevant_passages"] + row["hard_negatives"]],
            show_progress_bar=False,
        ).tolist()
        for row in read(held)
    ]


if __name__ == "__main__":
    BASE = sys.argv[1]
    trained: CrossEncoder
    answer({"train": train, "score": score})
