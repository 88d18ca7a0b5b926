"""Models of the last epochs, kept beside the finished one under epochs/."""

import json
from typing import Any

from training.checkpoint import Checkpoint, save_checkpoint
from training.config import TrainConfig
from training.run_folder import RunFolder


def keep_epoch(folder: RunFolder, checkpoint: Checkpoint, config: TrainConfig, trained: dict[str, Any]) -> None:
    """Write an epoch's model as a checkpoint of its own; those of more than `keep_epochs` epochs ago go.

    Args:
        folder: of the run.
        checkpoint: the weights that were evaluated, and a manifest calibrated on the same rows, with their figures.
        config: the settings, resolved.
        trained: `step` and `epoch`, both counted from 1, with the step's `train_loss` and `train_accuracy`.
    """
    found = checkpoint.manifest.metrics
    figures = trained | {"valid_loss": found["loss"], "valid_accuracy": found["accuracy"]}
    extra = {"train_config.yaml": config.to_yaml(), "metrics.json": json.dumps(figures, indent=2) + "\n"}
    save_checkpoint(folder.epoch(trained["step"]), checkpoint, extra)
    folder.keep_epochs(config.keep_epochs)
