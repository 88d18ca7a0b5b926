"""Fine-tuning jobs: accepted, followed, stopped. What carries them out is `serving.worker`.

A job lives in a row and in `<home>/jobs/<id>`. It owns links to the files it was given, so that nothing that happens
to those can break it. Its model has the job's id.

    validating_files → queued → running → succeeded | failed        cancelled and paused: from any state before the end

Requests change a job's status in the table alone, at once; the worker notices within a second or so and stops what it
is doing. A job is never changed from two sides: see `serving.leases`.
"""

import shutil
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select, update

from serving.database import events, jobs, utc_now
from serving.disk import link_or_copy, make_private
from serving.errors import RequestError
from serving.files import Files
from serving.job_records import ACTIVE, Job, JobEvent, JobFolder, JobStatus, Level, NewJob, event_of, job_of
from serving.names import short
from serving.pages import page


class Jobs:
    """Accepts, finds and changes jobs. Safe to share by threads and processes."""

    def __init__(self, home: Path, database: Engine) -> None:
        """Use `home` (created if missing) and an open database."""
        self.database, self._folders = database, home / "jobs"
        make_private(self._folders)

    def folder(self, job_id: str) -> JobFolder:
        """A job's folder."""
        return JobFolder(self._folders / job_id)

    def create(self, new: NewJob, files: Files) -> Job:
        """Accept a job. Data that has been validated already is not looked at again.

        Raises:
            RequestError: a file was removed in this very moment.
            OSError: the disk is full, or cannot be written to; nothing is left behind.
        """
        # What was validated apart from the rows it is to be evaluated on has not been compared with them.
        job_id, ready = str(uuid.uuid4()), new.train.dataset_type is not None and new.valid is None
        self._link(self.folder(job_id), new, files, ready=ready)
        moment = utc_now()
        status: JobStatus = "queued" if ready else "validating_files"
        row = {
            "id": job_id,
            "status": status,
            "task": new.task,
            "name": new.name,
            "model_name": new.model_name,
            "base": new.base,
            "request": new.request,
            "settings": new.settings,
            "train_file": new.train.id,
            "valid_file": new.valid.id if new.valid else None,
            "created_at": moment,
            "updated_at": moment,
            "validated": ready,
            "deleted": False,
            "offset": 0,
            "step": 0,
            "deaths": 0,
        }
        with self.database.begin() as connection:
            created = connection.execute(insert(jobs).values(row).returning(*jobs.c)).one()
            tell(connection, job_id, f"Created fine-tuning job: ftjob-{short(job_id)}", status=status)
        return job_of(created)  # as it was accepted: a worker may have it by now

    def find(self, job_id: str) -> Job | None:
        """The job of an id."""
        with self.database.connect() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id, jobs.c.deleted.is_(False))).first()
        return None if row is None else job_of(row)

    def get(self, job_id: str) -> Job:
        """The job of an id.

        Raises:
            RequestError: 404, there is none.
        """
        if job := self.find(job_id):
            return job
        raise RequestError(404, f"finetuned model {job_id} not found")

    def list(
        self,
        *where: ColumnElement[bool],
        limit: int,
        after: str | None = None,
        newest_first: bool = True,
        offset: int = 0,
    ) -> tuple[list[Job], bool]:
        """Some jobs, and whether there are more; see `serving.pages`."""
        seen = [jobs.c.deleted.is_(False), *where]
        rows, more = page(self.database, jobs, seen, limit=limit, after=after, newest_first=newest_first, offset=offset)
        return [job_of(row) for row in rows], more

    def count(self, *where: ColumnElement[bool]) -> int:
        """How many jobs there are."""
        with self.database.connect() as connection:
            return (
                connection.scalar(select(func.count()).select_from(jobs).where(jobs.c.deleted.is_(False), *where)) or 0
            )

    def events(
        self, job_id: str, *where: ColumnElement[bool], limit: int, after: str | None = None, offset: int = 0
    ) -> tuple[Sequence[JobEvent], bool]:
        """Some of a job's events, the newest first, and whether there are more; see `serving.pages`."""
        own = events.c.job_id == job_id
        rows, more = page(self.database, events, [own, *where], limit=limit, after=after, offset=offset, among=[own])
        return [event_of(row) for row in rows], more

    def change(self, job_id: str, **values: Any) -> Job:
        """Change what its owner may change: `name`, `request`, and `settings` of a job that has not begun.

        Raises:
            RequestError: 404, or 400 if there are settings among it and the training has begun.
        """
        here = [jobs.c.id == job_id, jobs.c.deleted.is_(False)]
        if "settings" in values:
            here += [jobs.c.status.in_(("validating_files", "queued", "paused")), jobs.c.started_at.is_(None)]
        with self.database.begin() as connection:
            changed = connection.execute(update(jobs).where(*here).values(**values, updated_at=utc_now())).rowcount
        job = self.get(job_id)
        if not changed:
            raise RequestError(400, "settings cannot be changed once a job has begun; create another")
        return job

    def cancel(self, job_id: str) -> Job:
        """End a job; what it has done so far is thrown away.

        Raises:
            RequestError: 404, or 400 if it has come to its end already.
        """
        self._move(job_id, ACTIVE, "The job was cancelled", {"status": "cancelled", "finished_at": utc_now()})
        return self.get(job_id)

    def pause(self, job_id: str) -> Job:
        """Stop a job and keep what it has done; errors as in `cancel`, also if it is paused."""
        self._move(
            job_id, tuple(status for status in ACTIVE if status != "paused"), "The job was paused", {"status": "paused"}
        )
        return self.get(job_id)

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on where it was; errors as in `cancel`, also if it is not paused."""
        status = "queued" if self._validated(job_id) else "validating_files"
        self._move(job_id, ("paused",), "The job was resumed", {"status": status})
        return self.get(job_id)

    def remove(self, job_id: str) -> None:
        """Forget a job, and end it if need be. Its model is the registry's to remove."""
        with self.database.begin() as connection:
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(deleted=True, updated_at=utc_now()))

    def sweep(self) -> None:
        """Remove the folders of jobs that have come to nothing and are in nobody's hands."""
        over = jobs.c.deleted.is_(True) | jobs.c.status.in_(("cancelled", "failed"))
        with self.database.connect() as connection:
            gone = connection.scalars(select(jobs.c.id).where(over, jobs.c.lease.is_(None))).all()
        for job_id in gone:
            shutil.rmtree(self._folders / job_id, ignore_errors=True)

    def _move(self, job_id: str, allowed: Sequence[JobStatus], message: str, values: dict[str, Any]) -> None:
        here = (jobs.c.id == job_id, jobs.c.deleted.is_(False), jobs.c.status.in_(allowed))
        with self.database.begin() as connection:
            if connection.execute(update(jobs).where(*here).values(**values, updated_at=utc_now())).rowcount:
                tell(connection, job_id, message, status=values["status"])
                return
        job = self.get(job_id)
        state = f"already {job.status}" if job.status in ("paused", "cancelled") else job.status.replace("_", " ")
        state = {"succeeded": "already succeeded", "failed": "already failed"}.get(job.status, state)
        have = "has" if job.status in ("succeeded", "failed") else "is"
        raise RequestError(400, f"Job ftjob-{short(job_id)} {have} {state}.", code="invalid_job_state")

    def _validated(self, job_id: str) -> bool:
        with self.database.connect() as connection:
            return bool(connection.scalar(select(jobs.c.validated).where(jobs.c.id == job_id)))

    def _link(self, folder: JobFolder, new: NewJob, files: Files, *, ready: bool) -> None:
        """Give the job its own links to the files, which are never changed in place."""
        both = [(new.train.id, 0)]
        if new.valid:
            both.append((new.valid.id, 0))
        elif len(new.train.parts) > 1:
            both.append((new.train.id, 1))
        place, targets = (files.prepared, folder.rows) if ready else (files.path, folder.inputs)
        folder.path.mkdir(parents=True)
        try:
            for (file_id, part), target in zip(both, targets, strict=False):
                link_or_copy(place(file_id, part), target)
        except OSError as error:
            shutil.rmtree(folder.path, ignore_errors=True)
            if not isinstance(error, FileNotFoundError):
                raise
            raise RequestError(400, "a file of the job was deleted while the job was being created") from None


def tell(
    connection: Connection,
    job_id: str,
    message: str,
    *,
    status: JobStatus | None = None,
    level: Level = "info",
    data: dict[str, Any] | None = None,
    at: datetime | None = None,
) -> None:
    """Add an event to a job, within a transaction."""
    row = {"id": str(uuid.uuid4()), "job_id": job_id, "created_at": at or utc_now(), "status": status}
    connection.execute(insert(events).values(row | {"level": level, "message": message, "data": data}))
