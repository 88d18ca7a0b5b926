"""Jobs, their events and their checkpoints as OpenAI's clients know them (OpenAI API reference, Fine-tuning)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

from serving.job_records import Job, JobEvent
from serving.openai.bases import last_part
from serving.openai.ids import shown
from serving.registry import Model
from training.config import TrainConfig

_HYPERPARAMETERS = {
    "n_epochs": "epochs",
    "batch_size": "batch_size",
    "learning_rate_multiplier": "learning_rate_multiplier",
}
"""What they are called in a run's settings, and in a job's result."""
_ORGANISATION = "org-local"
_SEED: int = TrainConfig.model_fields["seed"].default


def describe_job(job: Job, told: Sequence[JobEvent] = ()) -> dict[str, Any]:
    """A job; every key is always there.

    Args:
        job: the job, of whichever dialect.
        told: the latest events of a running job, newest first, to estimate its end by.
    """
    succeeded = job.status == "succeeded"
    result: Mapping[str, Any] = job.result if succeeded and job.result else {}
    asked_or_used = {
        name: result.get(field, job.settings.get(field, "auto")) for name, field in _HYPERPARAMETERS.items()
    }
    return {
        "object": "fine_tuning.job",
        "id": shown("ftjob-", job.id),
        "model": job.base,
        "created_at": _seconds(job.created_at),
        "finished_at": _seconds(job.finished_at) if job.finished_at else None,
        "fine_tuned_model": job.public_name if succeeded else None,
        "organization_id": _ORGANISATION,
        "result_files": [shown("file-", result["result_file"])] if result else [],
        "status": job.status,
        "validation_file": shown("file-", job.valid_file) if job.valid_file else None,
        "training_file": shown("file-", job.train_file),
        "hyperparameters": asked_or_used,
        "trained_tokens": result.get("trained_tokens"),
        "error": job.error,
        "seed": job.settings.get("seed", _SEED),
        "estimated_finish": _estimate(told) if job.status == "running" else None,
        "integrations": [],
        "metadata": job.request.get("metadata"),
        "user_provided_suffix": job.request.get("suffix"),
        "method": {"type": "supervised", "supervised": {"hyperparameters": asked_or_used}},
        "classifier": _classifier(job, result),
    }


def describe_event(event: JobEvent) -> dict[str, Any]:
    """An event; those of a step or an epoch carry its figures."""
    measured = event.data is not None and any(name.endswith("_loss") for name in event.data)
    return {
        "object": "fine_tuning.job.event",
        "id": shown("ftevent-", event.id),
        "created_at": _seconds(event.created_at),
        "level": event.level,
        "message": event.message,
        "type": "metrics" if measured else "message",
        "data": event.data,
    }


def describe_checkpoint(job: Job, model: Model, step: int, figures: Mapping[str, float]) -> dict[str, Any]:
    """A model that a job left.

    Args:
        job: the job.
        model: that of an epoch, or the finished one.
        step: the last one it was trained in.
        figures: `train_loss`, `train_accuracy`, `valid_loss`, `valid_accuracy`, as far as there are any.
    """
    metrics = {
        "step": step,
        "train_loss": figures.get("train_loss"),
        "train_mean_token_accuracy": figures.get("train_accuracy"),
    }
    if job.valid_file:  # else the rows were taken from the training file
        for whole in ("", "full_"):
            metrics[f"{whole}valid_loss"] = figures.get("valid_loss")
            metrics[f"{whole}valid_mean_token_accuracy"] = figures.get("valid_accuracy")
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": shown("ftckpt_", model.id),
        "created_at": _seconds(model.created_at),
        "fine_tuned_model_checkpoint": model.name or model.public_name,
        "fine_tuning_job_id": shown("ftjob-", job.id),
        "step_number": step,
        "metrics": {name: value for name, value in metrics.items() if value is not None},
    }


def encoder_of(job: Job) -> str:
    """The base model that a job trains, without owner or folder; of a model it goes on from, that model's base."""
    return job.request.get("encoder") or last_part(job.settings.get("base_model") or job.base)


def _classifier(job: Job, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """What clients of our own may want to know of a finished classifier."""
    if not result or job.task != "classify":
        return None
    return {
        "encoder": encoder_of(job),
        "labels": result["labels"],
        "max_tokens": result["max_length"],
        "separator": result["separator"],
    }


def _estimate(told: Sequence[JobEvent]) -> int | None:
    """The second in which the last step will be done, at the pace since the job last began or went on."""
    since = takewhile(lambda event: event.status is None, told)
    steps = [(event.created_at, event.data) for event in since if event.data and "total_steps" in event.data]
    if len(steps) < 2:
        return None
    (now, last), (then, first) = steps[0], steps[-1]
    pace = (now - then) / (last["step"] - first["step"])
    return _seconds(now + pace * (last["total_steps"] - last["step"]))


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
