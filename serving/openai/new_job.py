"""A request for a fine-tuning job turned into one: its fields, its files, the base model (OpenAI API, Fine-tuning)."""

import re
import secrets
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import AfterValidator, BeforeValidator, Field

from serving.errors import RequestError
from serving.files import DATASET_KINDS, File, Files
from serving.job_records import Job, NewJob
from serving.jobs import Jobs, tell
from serving.names import random_word
from serving.openai.bases import find_base, last_part
from serving.openai.files import TRAINING, find_file
from serving.openai.job_wire import encoder_of
from serving.openai.wire import Body
from serving.registry import Model
from serving.resolve import files_of, jobs_of, scorer_of

_KEPT_EPOCHS = 3
"""Checkpoints of a job, the finished model among them."""
_MOST_SEED = 2**31 - 1
_METADATA = (16, 64, 512)
"""Pairs, characters of a key, characters of a value."""
_BASE_WORD = 64
_TUNED = re.compile(r"ft:([^:]+):")


# "auto" is what holds without the field, so both are read as nothing.
def _or_auto(kind: Any) -> BeforeValidator:
    return BeforeValidator(
        lambda value: None if value == "auto" else value, json_schema_input_type=kind | Literal["auto"] | None
    )


_Epochs = Annotated[int, Field(ge=1, le=50)]
_BatchSize = Annotated[int, Field(ge=1, le=256)]
_Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Hyperparameters(Body):
    """Numbers of a run; None: chosen from the data."""

    n_epochs: Annotated[_Epochs | None, _or_auto(_Epochs)] = None
    batch_size: Annotated[_BatchSize | None, _or_auto(_BatchSize)] = None
    learning_rate_multiplier: Annotated[_Factor | None, _or_auto(_Factor)] = None

    @property
    def settings(self) -> dict[str, Any]:
        """What was given, by the names of `training.config.TrainConfig`."""
        given = {
            "epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }
        return {name: value for name, value in given.items() if value is not None}


class Supervised(Body):
    """Learning from examples."""

    hyperparameters: Hyperparameters | None = None


def _supervised(value: str) -> str:
    if value != "supervised":
        raise ValueError('expected "supervised": a classifier learns from labelled rows alone')
    return value


class Method(Body):
    """How to learn."""

    type: Annotated[str, AfterValidator(_supervised)]
    supervised: Supervised | None = None


def _few_and_short(value: dict[str, str]) -> dict[str, str]:
    pairs, longest, _ = _METADATA
    if len(value) > pairs:
        raise ValueError(f"expected at most {pairs} pairs")
    if any(len(key) > longest for key in value):
        raise ValueError(f"a key may have at most {longest} characters")
    return value


_Value = Annotated[str, Field(max_length=_METADATA[2])]


class JobBody(Body):
    """The request."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=_MOST_SEED)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    metadata: Annotated[dict[str, _Value], AfterValidator(_few_and_short)] | None = None
    integrations: list[Any] | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """The hyperparameters; those of `method` win over those of the older field."""
        newer = self.method and self.method.supervised and self.method.supervised.hyperparameters
        found = newer or self.hyperparameters
        return found.settings if found else {}


def accept(request: Request, body: JobBody) -> Job:
    """Create the job that is asked for; it is validated and trained by the worker.

    Raises:
        RequestError: 400, a model or file that cannot be used.
    """
    files, jobs = files_of(request), jobs_of(request)
    base, encoder = _base_of(request, body.model)
    train = _usable(files, "training_file", body.training_file)
    valid = _usable(files, "validation_file", body.validation_file) if body.validation_file is not None else None
    seed = secrets.randbelow(_MOST_SEED + 1) if body.seed is None else body.seed
    settings = {"base_model": base, "problem": "single_label", "keep_epochs": _KEPT_EPOCHS, "seed": seed}
    new = NewJob(
        task="classify",
        base=body.model,
        train=train,
        valid=valid,
        model_name=_name(body, request.app.state.settings.organization),
        settings=settings | body.numbers,
        request={"suffix": body.suffix, "metadata": body.metadata, "encoder": encoder},
    )
    job = jobs.create(new, files)
    if body.integrations:
        with jobs.database.begin() as connection:
            tell(connection, job.id, "Integrations are not carried out by this server", level="warn")
    return job


def _base_of(request: Request, name: str) -> tuple[str, str]:
    """What to train, as the training command takes it, and the encoder behind it, as it is shown."""
    if base := find_base(name, request.app.state.settings.bases):
        return base, last_part(base)
    registry = scorer_of(request).registry
    if model := registry.find(name):
        return str(registry.folder(model.id)), _encoder_behind(model, jobs_of(request))
    message = f"Model {name[:200]} is not available for fine-tuning or does not exist."
    raise RequestError(400, message, param="model", code="model_not_available")


def _encoder_behind(model: Model, jobs: Jobs) -> str:
    job = jobs.find(model.job_id) if model.job_id else None
    return encoder_of(job) if job else last_part(model.base_model)


def _usable(files: Files, param: str, public_id: str) -> File:
    """A file to train or evaluate with."""
    file = find_file(files, public_id)
    if file is None:
        raise RequestError(400, f"File {public_id[:200]} does not exist.", param=param, code="file_not_found")
    if file.purpose != TRAINING or DATASET_KINDS.get(file.dataset_type or "", "single-label") != "single-label":
        kind = f"was uploaded for {file.dataset_type or file.purpose}"
        reason = f"File {public_id} {kind}; upload it with purpose {TRAINING}."
        raise RequestError(400, reason, param=param, code="invalid_file_purpose")
    if file.status != "validated":
        state = "has failed validation" if file.status == "failed" else "is still being validated"
        raise RequestError(400, f"File {public_id} {state}.", param=param, code="invalid_file_status")
    return file


def _name(body: JobBody, organisation: str) -> str:
    """What the model will be called; of a fine-tuned model to go on from, its base stands in the name."""
    tuned = _TUNED.match(body.model)
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", tuned[1] if tuned else last_part(body.model))[:_BASE_WORD]
    suffix = re.sub(r"[^a-z0-9_-]+", "-", (body.suffix or "").lower())
    return f"ft:{word}:{organisation}:{suffix}:{random_word(8)}"
