"""The registry of models a server may answer with: folders under `<home>/models`, rows in the database.

A folder is complete before it gets its final name, and a row is seen only in state "ready", so nothing partial is
ever visible. Whatever a crash leaves half done is undone by `Registry.heal`, which a server calls when it starts.
Servers notice additions and removals by themselves, also those of another process.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from serving.database import models, open_database, utc_now, zoned
from serving.disk import link_or_copy, make_private, sync
from serving.names import bare_id, check_name, is_name
from serving.settings import load_settings
from training.errors import ModelError
from training.manifest import ProblemType, Task, read_manifest


@dataclass(frozen=True, slots=True)
class Model:
    """A registered checkpoint."""

    id: str
    name: str | None
    task: Task
    problem_type: ProblemType | None
    labels: int
    max_length: int
    base_model: str
    created_at: datetime
    job_id: str | None = None
    """The job that trained it, if one did."""
    step: int | None = None
    """The optimiser step it is of, if it stands for one epoch beside the finished model."""
    metrics: dict[str, float] | None = None

    @property
    def public_name(self) -> str:
        """What clients pass as `model` (Cohere documentation, fine-tuned models: the id with `-ft`)."""
        return f"{self.id}-ft"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a job's model comes from; adding it twice adds it once."""

    model_id: str
    job_id: str
    step: int | None = None
    metrics: dict[str, float] | None = None


class Registry:
    """Adds, removes and finds models. Safe to share by threads; several processes may use one home and database."""

    def __init__(self, home: Path, database: Engine) -> None:
        """Use `home` (created if missing) and an open database."""
        self._home, self._database = home, database
        self._folders, self._staging = home / "models", home / "tmp"
        for folder in (self._folders, self._staging):
            make_private(folder)
        self._found: dict[str, Model] = {}

    def folder(self, model_id: str) -> Path:
        """Where a model's checkpoint lies; the folder is gone as soon as the model is removed."""
        return self._folders / model_id

    def find(self, key: str) -> Model | None:
        """Find a model by `<uuid>-ft`, by its bare uuid or by its name.

        What was found once is remembered while its folder stands, so that a request costs no query.
        """
        if found := self.remembered(key):
            return found
        model_id = bare_id(key)
        if model_id is None and not is_name(key):
            return None
        match = models.c.id == model_id if model_id else models.c.name == key
        with self._database.connect() as connection:
            row = connection.execute(select(models).where(match, models.c.state == "ready")).first()
        if row is None or not self.folder(row.id).is_dir():
            return None
        self._found[model_id or key] = _model(row)
        return _model(row)

    def remembered(self, key: str) -> Model | None:
        """What `find` knows without a query: one look at the file system, quick enough for the event loop."""
        known_as = bare_id(key) or key
        model = self._found.get(known_as)
        if model is not None and not self.folder(model.id).is_dir():
            self._found.pop(known_as, None)
            return None
        return model

    def list(self) -> Sequence[Model]:
        """All models, oldest first, those of single epochs left out."""
        return self._list(models.c.step.is_(None))

    def epochs(self, job_id: str) -> Sequence[Model]:
        """The models of a job's single epochs, in order of their steps."""
        return sorted(
            self._list(models.c.job_id == job_id, models.c.step.is_not(None)), key=lambda model: model.step or 0
        )

    def _list(self, *where: ColumnElement[bool]) -> Sequence[Model]:
        query = select(models).where(models.c.state == "ready", *where).order_by(models.c.created_at, models.c.id)
        with self._database.connect() as connection:
            rows = connection.execute(query).all()
        return [_model(row) for row in rows if self.folder(row.id).is_dir()]

    def add(
        self, source: Path, name: str | None = None, *, replace: bool = False, origin: Origin | None = None
    ) -> Model:
        """Copy a checkpoint into the registry.

        Args:
            source: a checkpoint folder, or the folder of the run that made it.
            name: a further name for the model, unique in the registry.
            replace: take the name from the model that has it, and remove that model.
            origin: the job it is of; by default none.

        Raises:
            ModelError: `source` is no checkpoint, or the name is not allowed or taken.
        """
        checkpoint = source / "checkpoint" if (source / "checkpoint").is_dir() else source
        manifest = read_manifest(checkpoint)
        if name is not None:
            check_name(name)
        model_id = origin.model_id if origin else str(uuid.uuid4())
        with self._lock():
            if origin:
                if known := self.find(model_id):
                    return known
                self._erase(model_id)  # what an addition left that was cut short
            old = self._named(name)
            if old and not replace:
                raise ModelError(f"the name {name} belongs to model {old} already; choose another or give --replace")
            row = {
                "id": model_id,
                "state": "adding",
                "task": manifest.task,
                "problem_type": manifest.problem_type,
                "labels": len(manifest.labels),
                "max_length": manifest.max_length,
                "base_model": manifest.base_model,
                "created_at": utc_now(),
                "job_id": origin and origin.job_id,
                "step": origin and origin.step,
                "metrics": origin and origin.metrics,
            }
            with self._database.begin() as connection:
                connection.execute(insert(models).values(row))
            try:
                self._place(checkpoint, model_id, link_or_copy if origin else shutil.copy2)
                self._publish(model_id, name, old)
            except BaseException:
                self._erase(model_id)
                raise
            if old:
                self._erase(old)
        found = self.find(model_id)
        if found is None:
            raise ModelError(f"model {model_id} was removed while it was being added")
        return found

    def remove(self, key: str) -> Model:
        """Remove a model, and those of its job's single epochs, at once; requests it has accepted are still answered.

        Raises:
            ModelError: there is no such model.
        """
        with self._lock():
            model = self.find(key)
            if model is None:
                raise ModelError(f"there is no model {key}; `python -m serving.models list` shows those there are")
            whole = model.job_id if model.step is None else None
            gone = [model.id, *(epoch.id for epoch in self.epochs(whole))] if whole else [model.id]
            with self._database.begin() as connection:
                connection.execute(update(models).where(models.c.id.in_(gone)).values(state="removing"))
            for model_id in gone:
                self._erase(model_id)
        return model

    def heal(self) -> None:
        """Undo what was interrupted half-way: additions that did not finish, removals that did not."""
        with self._lock():
            with self._database.connect() as connection:
                unfinished = connection.scalars(select(models.c.id).where(models.c.state != "ready")).all()
            for model_id in unfinished:
                self._erase(model_id)
            for left in self._staging.iterdir():
                shutil.rmtree(left, ignore_errors=True)

    def reachable(self) -> bool:
        """Whether the database answers and the models folder is there."""
        try:
            with self._database.connect() as connection:
                connection.execute(select(models.c.id).limit(1))
        except SQLAlchemyError:
            return False
        return self._folders.is_dir()

    @contextmanager
    def _lock(self) -> Generator[None, None, None]:
        """Let one process at a time change the registry; the lock goes with the process that held it."""
        with (self._home / "models.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _named(self, name: str | None) -> str | None:
        if name is None:
            return None
        with self._database.connect() as connection:
            return connection.scalar(select(models.c.id).where(models.c.name == name))

    def _place(self, checkpoint: Path, model_id: str, copy: Callable[[str, str], object]) -> None:
        staged = self._staging / model_id
        try:
            shutil.copytree(checkpoint, staged, ignore=shutil.ignore_patterns(".*"), copy_function=copy)
        except OSError as error:
            raise ModelError(f"{checkpoint} cannot be copied to {staged.parent}: {error.strerror or error}") from None
        for path in sorted(staged.rglob("*"), reverse=True):
            sync(path)
        sync(staged)
        os.rename(staged, self.folder(model_id))
        sync(self._folders)

    def _publish(self, model_id: str, name: str | None, old: str | None) -> None:
        try:
            with self._database.begin() as connection:
                if old:
                    connection.execute(update(models).where(models.c.id == old).values(name=None, state="removing"))
                connection.execute(update(models).where(models.c.id == model_id).values(name=name, state="ready"))
        except IntegrityError:  # another machine on the same database was quicker
            raise ModelError(f"the name {name} was taken meanwhile; choose another or give --replace") from None

    def _erase(self, model_id: str) -> None:
        """Rename the folder away, drop the row, then delete the files."""
        aside = self._staging / f"{model_id}.removed"
        if self.folder(model_id).exists():
            os.rename(self.folder(model_id), aside)
        with self._database.begin() as connection:
            connection.execute(delete(models).where(models.c.id == model_id))
        for left in (aside, self._staging / model_id):
            shutil.rmtree(left, ignore_errors=True)


def open_registry() -> Registry:
    """The registry that the environment's settings name.

    Raises:
        ConfigError: a setting cannot be used.
    """
    settings = load_settings()
    try:
        return Registry(settings.home, open_database(settings.database))
    except OSError as error:
        raise ModelError(f"the home folder {settings.home} cannot be used: {error.strerror}; set ENCORE_HOME") from None


def _model(row: Any) -> Model:
    return Model(
        id=row.id,
        name=row.name,
        task=row.task,
        problem_type=row.problem_type,
        labels=row.labels,
        max_length=row.max_length,
        base_model=row.base_model,
        created_at=zoned(row.created_at),
        job_id=row.job_id,
        step=row.step,
        metrics=row.metrics,
    )
