"""What is known of a job: the order, its state, its events, and where its files lie."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from serving.database import zoned
from serving.files import File

JobStatus = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
Level = Literal["info", "warn", "error"]

ACTIVE: tuple[JobStatus, ...] = ("validating_files", "queued", "running", "paused")
"""Before the end."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be."""

    task: Literal["classify", "rerank"]
    base: str
    """The base model's name as the client gave it."""
    train: File
    valid: File | None = None
    """Rows to evaluate on; a second part of `train` serves where it is None."""
    name: str = ""
    """What its owner calls it."""
    model_name: str | None = None
    """A name for the model besides its id, unique."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of `training.config.TrainConfig`, files and folder left out; they must be valid."""
    request: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the dialect wants to show again."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands."""

    id: str
    status: JobStatus
    task: Literal["classify", "rerank"]
    name: str
    model_name: str | None
    base: str
    request: dict[str, Any]
    settings: dict[str, Any]
    train_file: str
    valid_file: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: dict[str, Any] | None
    """`code`, `message` and `param` (`training_file`, `validation_file` or None) of a failed job."""
    result: dict[str, Any] | None
    """Of a succeeded job: `trained_tokens`, `epochs`, `batch_size`, `learning_rate`, `learning_rate_multiplier`,
    `steps`, `labels`, `max_length`, `separator`, `metrics`, `result_file`."""

    @property
    def active(self) -> bool:
        """Whether it has not come to its end."""
        return self.status in ACTIVE

    @property
    def public_name(self) -> str:
        """What clients call its model."""
        return self.model_name or f"{self.id}-ft"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job."""

    id: str
    created_at: datetime
    level: Level
    message: str
    status: JobStatus | None
    """The status it brought, if it brought one."""
    data: dict[str, Any] | None
    """Figures of a step: `step`, `total_steps`, `train_loss` and so on."""


class JobFolder:
    """What lies where in a job's folder."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is touched."""
        self.path = path
        self.inputs = (path / "input-0", path / "input-1")
        """The files as they were uploaded."""
        self.rows = (path / "train.jsonl", path / "valid.jsonl")
        """What is trained and evaluated on."""
        self.config, self.run, self.log = path / "config.yaml", path / "run", path / "trainer.log"


def job_of(row: Any) -> Job:
    """A row of the table as a job."""
    return Job(
        id=row.id,
        status=row.status,
        task=row.task,
        name=row.name,
        model_name=row.model_name,
        base=row.base,
        request=row.request,
        settings=row.settings,
        train_file=row.train_file,
        valid_file=row.valid_file,
        created_at=zoned(row.created_at),
        updated_at=zoned(row.updated_at),
        started_at=row.started_at and zoned(row.started_at),
        finished_at=row.finished_at and zoned(row.finished_at),
        error=row.error,
        result=row.result,
    )


def event_of(row: Any) -> JobEvent:
    """A row of the table as an event."""
    return JobEvent(row.id, zoned(row.created_at), row.level, row.message, row.status, row.data)
