"""Fine-tuned models as they travel (Cohere API reference, Finetuning): what is asked for, and a job as one is shown."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter

from serving.cohere.hyperparameters import HyperparametersBody
from serving.cohere.wire import OWNER, Name, timestamp
from serving.job_records import Job, JobEvent, JobStatus

ASKED = "cohere"
"""Where in `Job.request` stands what was asked for here."""
_STATUSES: Mapping[JobStatus, str] = {
    "validating_files": "STATUS_QUEUED",
    "queued": "STATUS_QUEUED",
    "running": "STATUS_FINETUNING",
    "paused": "STATUS_PAUSED",
    "succeeded": "STATUS_READY",
    "failed": "STATUS_FAILED",
    "cancelled": "STATUS_FAILED",
}
BASE_TYPES: Mapping[Literal["classify", "rerank"], str] = {
    "classify": "BASE_TYPE_CLASSIFICATION",
    "rerank": "BASE_TYPE_RERANK",
}
_FIGURES = {
    "classify": (
        *(("loss", "loss"), ("accuracy", "accuracy")),
        *(("precision_macro", "precision"), ("recall_macro", "recall"), ("f1_macro", "f1")),
    ),
    "rerank": tuple((name, name) for name in ("loss", "accuracy", "accuracy@1", "accuracy@3", "mrr@10", "ndcg@10")),
}
"""Figures of evaluation rows, and the names Cohere has for them (Cohere documentation, understanding the results)."""


class BaseModelBody(BaseModel):
    """What is to be fine-tuned."""

    base_type: str | None = None
    name: str | None = None


class WandbBody(BaseModel):
    """Where else to report to. Nothing is reported; the key is not even read."""

    project: str | None = None
    entity: str | None = None


class SettingsBody(BaseModel):
    """How it is to be fine-tuned."""

    base_model: BaseModelBody | None = None
    dataset_id: str | None = None
    hyperparameters: HyperparametersBody | None = None
    wandb: WandbBody | None = None


class FinetunedModelBody(BaseModel):
    """A fine-tuned model as it is asked for; fields that only answers have are ignored."""

    name: Annotated[Name, StringConstraints(max_length=256)] | None = None
    settings: SettingsBody | None = None


BODY = TypeAdapter(FinetunedModelBody)


class Paging(BaseModel):
    """Which part of a list is wanted."""

    page_size: int = Field(0, ge=0)
    page_token: str = ""
    order_by: Annotated[str, StringConstraints(pattern=r"^\s*(created_at(\s+(asc|desc))?)?\s*$")] = ""

    def newest_first(self, *, usual: bool) -> bool:
        """Whether the newest comes first; `usual` holds where the client leaves it open."""
        return self.order_by.split()[-1] == "desc" if self.order_by.strip() else usual


def described(job: Job, *, has_model: bool) -> dict[str, Any]:
    """A job as a fine-tuned model; `has_model`: its model is registered."""
    deleted = job.status == "succeeded" and not has_model
    return {
        "id": job.id,
        "name": job.name or job.public_name,
        "creator_id": OWNER,
        "organization_id": OWNER,
        "settings": _settings(job),
        "status": "STATUS_DELETED" if deleted else _STATUSES[job.status],
        "created_at": timestamp(job.created_at),
        "updated_at": timestamp(job.updated_at),
        "completed_at": timestamp(job.finished_at) if job.finished_at else None,
        "last_used": None,
    }


def _settings(job: Job) -> dict[str, Any]:
    asked = job.request.get(ASKED, {})
    base = {"base_type": BASE_TYPES[job.task], "name": job.base, "version": _version(job)}
    content: dict[str, Any] = {
        "base_model": base,
        "dataset_id": job.train_file,
        "hyperparameters": hyperparameters(job),
        "multi_label": job.settings.get("problem") == "multi_label",
    }
    return content | ({"wandb": asked["wandb"]} if asked.get("wandb") else {})


def _version(job: Job) -> str:
    """The base that the name stands for; of a folder the last part, as its place is the server's own business."""
    name = str(job.settings.get("base_model", job.base))
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def hyperparameters(job: Job) -> dict[str, Any]:
    """What was chosen, and what the run took where nothing was, as far as it is known."""
    found = job.settings | (job.result or {})
    numbers = {"train_epochs": found.get("epochs"), "train_batch_size": found.get("batch_size")}
    used = {name: value for name, value in numbers.items() if isinstance(value, int)}
    return used | job.request.get(ASKED, {}).get("hyperparameters", {})


def event(item: JobEvent) -> dict[str, Any]:
    """A change of status."""
    status = _STATUSES[item.status] if item.status else "STATUS_UNSPECIFIED"
    return {"user_id": "", "status": status, "created_at": timestamp(item.created_at)}


def step_metrics(job: Job, items: Iterable[JobEvent]) -> dict[str, dict[str, Any]]:
    """Figures of a job's steps by the step's number, the newest first.

    `loss` and `accuracy` are of the step's own rows. After an epoch they are of the evaluation rows, with all other
    figures of those once the job has ended, and the step's own are `train_loss` and `train_accuracy`; at the last step
    they are those of the finished model.
    """
    own, held = dict[int, dict[str, float]](), dict[int, dict[str, float]]()
    moments = dict[int, str]()
    for item in items:
        data = item.data or {}
        for kind, figures in (("train", own), ("valid", held)):
            if f"{kind}_loss" in data:
                accuracy = data[f"{kind}_mean_token_accuracy"]
                figures[data["step"]] = {"loss": data[f"{kind}_loss"], "accuracy": accuracy}
                moments[data["step"]] = timestamp(item.created_at)
    result = job.result or {"history": (), "steps": 0, "metrics": {}}
    for figures in (*result["history"], {"step": result["steps"], **result["metrics"]}):
        step = int(figures["step"])
        held[step] = held.get(step, {}) | {name: figures[ours] for ours, name in _FIGURES[job.task] if ours in figures}
    return {
        str(step): {"created_at": moments[step], "step_number": step, "metrics": _merged(own.get(step), held.get(step))}
        for step in sorted(moments, reverse=True)
    }


def _merged(own: dict[str, float] | None, held: dict[str, float] | None) -> dict[str, float]:
    if not own or not held:
        return own or held or {}
    return held | {f"train_{name}": value for name, value in own.items()}
