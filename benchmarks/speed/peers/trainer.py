# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false
"""Fine-tunes a classifier with transformers' Trainer, set up as its example `run_classification.py` does.

Its defaults: texts of 128 tokens each, padded to that; a learning rate of 5e-5 that falls linearly; float32.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from benchmarks.speed.talk import answer

MAX_LENGTH = 128


def rows(path: str, tokenizer: Any, labels: list[str], pad: bool) -> Dataset:
    """A JSONL file, tokenised; a label that training has not seen is -1."""
    read = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    padding = "max_length" if pad else False
    encoded = tokenizer([row["text"] for row in read], padding=padding, max_length=MAX_LENGTH, truncation=True)
    known = {label: number for number, label in enumerate(labels)}
    return Dataset.from_dict({**encoded, "label": [known.get(row["label"], -1) for row in read]})


def train(
    train: str, test: str, batch: int, epochs: int, steps: int, pad: bool, bf16: bool, seed: int = 42
) -> dict[str, float]:
    """Some epochs, or `steps` of them: rows a second by the trainer's own clock, and the accuracy on the test rows."""
    set_seed(seed)
    lines = Path(train).read_text(encoding="utf-8").splitlines()
    labels = sorted({json.loads(line)["label"] for line in lines})
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=len(labels))
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=output,
                num_train_epochs=epochs,
                max_steps=steps,
                per_device_train_batch_size=batch,
                per_device_eval_batch_size=32,
                bf16=bf16,
                use_cpu=True,
                seed=seed,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=rows(train, tokenizer, labels, pad),
            data_collator=default_data_collator if pad else DataCollatorWithPadding(tokenizer),
        )
        figures = trainer.train().metrics
        measured = {"rows_per_second": figures["train_samples_per_second"]}
        if steps < 0:
            found = trainer.predict(rows(test, tokenizer, labels, pad))
            measured["accuracy"] = float(np.mean(found.predictions.argmax(axis=1) == found.label_ids))
    return measured


if __name__ == "__main__":
    BASE = sys.argv[1]
    answer({"train": train})
