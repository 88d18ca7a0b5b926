"""Fine-tuned models as they are asked for, turned into jobs: what is refused, and what settings a run gets."""

from typing import Any, Literal

from fastapi import Request

from serving.cohere.datasets import find_dataset
from serving.cohere.finetuning_wire import (
    ASKED,
    BASE_TYPES,
    BaseModelBody,
    FinetunedModelBody,
    SettingsBody,
    hyperparameters,
)
from serving.cohere.hyperparameters import run_settings
from serving.errors import RequestError
from serving.files import DATASET_KINDS, EVAL_FRACTION, File
from serving.job_records import Job, NewJob
from serving.names import BASE_NAMES, RERANK_NAMES
from serving.resolve import settings_of
from training.config import validate_config

Task = Literal["classify", "rerank"]

_HOSTED = frozenset((*BASE_NAMES, *RERANK_NAMES))
_USUAL_BASE = "english"


def new_job(request: Request, body: FinetunedModelBody) -> NewJob:
    """The job that a fine-tuned model is asked for with.

    Raises:
        RequestError: 400, something is missing or does not fit; 404, there is no such dataset.
        ConfigError: the run would refuse a setting.
    """
    if not body.name:
        raise _missing("name")
    if body.settings is None:
        raise _missing("settings")
    base = body.settings.base_model or BaseModelBody()
    task = _task(base.base_type)
    dataset = _dataset(request, body.settings.dataset_id, task)
    given = body.settings.hyperparameters.given if body.settings.hyperparameters else {}
    settings = {"base_model": _base(request, base.name), **_settings(dataset), **run_settings(given)}
    _check(task, settings)
    asked: dict[str, Any] = {"hyperparameters": given}
    if wandb := body.settings.wandb:
        asked["wandb"] = wandb.model_dump(exclude_none=True)
    return NewJob(task, base.name or _USUAL_BASE, dataset, name=body.name, settings=settings, request={ASKED: asked})


def changes(job: Job, body: FinetunedModelBody) -> dict[str, Any]:
    """Columns of a job that are to change: its name, its hyperparameters. What is not said stays as it is.

    Raises:
        RequestError: 400, another dataset or base is asked for.
        ConfigError: the run would refuse a setting.
    """
    columns: dict[str, Any] = {"name": body.name} if body.name else {}
    if body.settings:
        _refuse_others(job, body.settings)
        columns |= _changed(job, body.settings)
    return columns


def _missing(field: str) -> RequestError:
    return RequestError(400, f"invalid request: {field}: field required")


def _task(base_type: str | None) -> Task:
    for task, name in BASE_TYPES.items():
        if base_type == name:
            return task
    if not base_type:
        raise _missing("settings.base_model.base_type")
    served = " and ".join(BASE_TYPES.values())
    raise RequestError(
        400, f"invalid request: settings.base_model.base_type: this server trains {served}, not {base_type[:80]!r}"
    )


def _base(request: Request, name: str | None) -> str:
    """The base model that a name stands for: hosted names for the server's default."""
    settings = settings_of(request)
    if not name or name in _HOSTED:
        return settings.default_base
    if name in settings.bases:
        return name
    names = ", ".join(("english", "multilingual", *settings.base_models))
    raise RequestError(
        400,
        f"invalid request: settings.base_model.name: {name[:200]!r} is not a base model of this server; it has {names}",
    )


def _dataset(request: Request, dataset_id: str | None, task: Task) -> File:
    """The dataset of an id, fit for a task."""
    if not dataset_id:
        raise _missing("settings.dataset_id")
    dataset = find_dataset(request, dataset_id)
    if (DATASET_KINDS[dataset.dataset_type or ""] == "rerank") != (task == "rerank"):
        raise RequestError(
            400,
            f"invalid request: settings.dataset_id: dataset {dataset.id} is of type {dataset.dataset_type}, which "
            f"does not go with {BASE_TYPES[task]}",
        )
    if dataset.status != "validated":
        why = f" ({dataset.report['error']})" if dataset.report.get("error") else "; wait until it is"
        raise RequestError(
            400,
            f"invalid request: settings.dataset_id: dataset {dataset.id} is {dataset.status}, not validated{why}",
        )
    return dataset


def _settings(dataset: File) -> dict[str, Any]:
    """What the dataset itself decides about a run."""
    settings: dict[str, Any] = {} if len(dataset.parts) > 1 else {"eval_fraction": EVAL_FRACTION}
    match DATASET_KINDS[dataset.dataset_type or ""]:
        case "single-label":
            settings["problem"] = "single_label"
        case "multi-label":
            settings["problem"] = "multi_label"
        case "rerank":
            pass
    return settings


def _check(task: Task, settings: dict[str, Any]) -> None:
    """Refuse what the run would refuse; the files are not known yet, and do not matter."""
    validate_config({"train_file": "rows", "output_dir": "run", "task": task, **settings})


def _refuse_others(job: Job, settings: SettingsBody) -> None:
    base = settings.base_model or BaseModelBody()
    asked = {
        "dataset_id": (settings.dataset_id, job.train_file),
        "base_model.base_type": (base.base_type, BASE_TYPES[job.task]),
        "base_model.name": (base.name, job.base),
    }
    for field, (wanted, present) in asked.items():
        if wanted and wanted != present:
            raise RequestError(
                400, f"invalid request: settings.{field}: it cannot be changed, it is {present}; create another model"
            )


def _changed(job: Job, settings: SettingsBody) -> dict[str, Any]:
    """Columns of the job that other hyperparameters change; none if they are as they were."""
    shown = hyperparameters(job)
    given = settings.hyperparameters.given if settings.hyperparameters else {}
    if all(shown.get(name) == value for name, value in given.items()):
        return {}
    asked = job.request.get(ASKED, {})
    merged = asked.get("hyperparameters", {}) | given
    changed = job.settings | run_settings(merged)
    _check(job.task, changed)
    return {"settings": changed, "request": job.request | {ASKED: asked | {"hyperparameters": merged}}}
