"""A finished run becomes a model: the checkpoint into the registry, the figures into the job's result.

Everything here may be done twice with the outcome of once, as a worker may be killed at any instant.
"""

import csv
import io
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.files import Files, Upload
from serving.job_records import Job, JobFolder
from serving.names import epoch_id
from serving.registry import Origin, Registry
from training.config import TrainConfig, load_config
from training.errors import ModelError
from training.manifest import Manifest, read_manifest
from training.run_folder import RunFolder

RESULTS_NAME = "step_metrics.csv"
_OF_TRAINING = ("train_loss", "train_accuracy")
"""Columns of the table of steps that tell of the rows trained on; all further ones tell of those evaluated on."""


def publish(job: Job, folder: JobFolder, registry: Registry, files: Files) -> dict[str, Any]:
    """Add a run's models and its table of steps; gives `Job.result`.

    The model of the last epoch is the finished one; those of earlier epochs, where the run kept them, stand beside it.

    Raises:
        EncoreError: a checkpoint cannot be read or copied.
        OSError: the disk is full.
    """
    run = RunFolder(folder.run)
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    for path in run.kept_epochs()[:-1]:
        figures = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        step = int(figures["step"])
        origin = Origin(epoch_id(job.id, step), job.id, step, figures)
        registry.add(path, f"{job.public_name}:ckpt-step-{step}", origin=origin)
    registry.add(run.checkpoint, job.model_name, origin=Origin(job.id, job.id))
    steps = Upload(RESULTS_NAME, io.BytesIO(_steps(run.steps, measured=folder.rows[1].exists())))
    results = files.add([steps], name=RESULTS_NAME, purpose="fine-tune-results", file_id=job.id)
    resolved, manifest = load_config(run.checkpoint / "train_config.yaml"), read_manifest(run.checkpoint)
    return _result(resolved, manifest, metrics) | {"result_file": results.id}


def withdraw(job: Job, registry: Registry, files: Files) -> None:
    """Take back what was published for a job that was cancelled in that very moment."""
    with suppress(ModelError):
        registry.remove(job.id)
    files.remove(job.id)


def tidy(folder: JobFolder) -> None:
    """Leave of a published run what is looked at later: events, figures, plots."""
    for path in (*folder.inputs, *folder.rows):
        path.unlink(missing_ok=True)
    run = RunFolder(folder.run)
    for path in (run.checkpoint, run.epochs, run.state):
        shutil.rmtree(path, ignore_errors=True)


def _steps(path: Path, *, measured: bool) -> bytes:
    """The table of steps; figures of rows to evaluate on are left out unless the owner gave such rows."""
    if measured:
        return path.read_bytes()
    buffer = io.StringIO()
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        table = csv.DictWriter(buffer, rows.fieldnames or (), restval="", lineterminator="\n")
        table.writeheader()
        table.writerows({name: row[name] for name in ("step", *_OF_TRAINING)} for row in rows)
    return buffer.getvalue().encode()


def _result(config: TrainConfig, manifest: Manifest, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "trained_tokens": metrics["train"]["tokens"],
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "learning_rate_multiplier": config.learning_rate_multiplier,
        "steps": metrics["train"]["steps"],
        "labels": list(manifest.labels),
        "max_length": manifest.max_length,
        "separator": manifest.rules.separator,
        "metrics": {name: value for name, value in metrics["eval"].items() if isinstance(value, float)},
        "history": metrics["history"],
    }
