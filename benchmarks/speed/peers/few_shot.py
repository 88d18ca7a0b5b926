# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""Classifies by examples with SetFit: fine-tunes the encoder on pairs of examples, then fits a head."""

import sys
import tempfile
import time
from typing import Any

from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

from benchmarks.speed.talk import answer


def classify(examples: list[tuple[str, str]], texts: list[str], pairs: int | None) -> dict[str, Any]:
    """Learn from texts with labels, then label others: seconds, and the labels.

    Args:
        examples: texts with labels.
        texts: to be labelled.
        pairs: of each example, alike and unlike ones; None: all that there are, as the library has it by default.
    """
    began = time.perf_counter()
    model = SetFitModel.from_pretrained(sys.argv[1], device="cpu")
    rows = Dataset.from_dict({"text": [text for text, _ in examples], "label": [label for _, label in examples]})
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output, num_iterations=pairs, report_to="none", show_progress_bar=False, save_strategy="no"
        )
        Trainer(model=model, args=arguments, train_dataset=rows).train()
    labels = [str(label) for label in model.predict(texts)]
    return {"seconds": time.perf_counter() - began, "labels": labels}


if __name__ == "__main__":
    answer({"classify": classify})
