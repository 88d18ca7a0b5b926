"""Jobs taken from the queue and trained, one after the other."""

import logging
import threading
import time
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Row, select
from sqlalchemy.exc import SQLAlchemyError

from serving.database import jobs as table
from serving.database import utc_now
from serving.disk import FULL
from serving.files import Files
from serving.job_records import Job, JobFolder, job_of
from serving.jobs import Jobs, tell
from serving.leases import Queue
from serving.publish import publish, tidy, withdraw
from serving.registry import Registry
from serving.settings import Settings
from serving.trainer import Outcome, Trainer, wait_until_free
from training.atomic import write_atomically
from training.config import validate_config
from training.errors import EncoreError, ModelError
from training.events import Event, read_events
from training.run_folder import RunFolder

_BEAT_SECONDS = 1.0
_DEATHS = 25
"""So often may a trainer be killed without having got on; killing is the doing of others."""
_DISK_FULL = "the disk is full; make room and create the job again"
_NO_MEMORY = "training ran out of memory and was ended by the system; use a smaller batch size or shorter texts"
_UNEXPECTED = "training ended unexpectedly; the server's log has the reason"

Left = Literal["ended", "handed back", "taken away"]

_logger = logging.getLogger(__name__)


class TrainingLane:
    """Trains on one device of this machine."""

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        files: Files,
        registry: Registry,
        worker: str,
        device: str,
        stop: threading.Event,
    ) -> None:
        """Work as `worker`, a name that no other living process has, until `stop` is set."""
        self._jobs, self._files, self._registry = jobs, files, registry
        self._worker, self._device, self._stop = worker, device, stop
        self._patience = settings.lease_seconds * 0.7
        self._queue = Queue(jobs.database, table, "queued", "running", settings.lease_seconds)

    def once(self) -> bool:
        """Take a job if there is one, and see it through; whether there was one."""
        row = self._queue.claim(self._worker, alone=True)
        if row is None:
            return False
        job, folder = job_of(row), self._jobs.folder(row.id)
        try:
            if not folder.run.joinpath("metrics.json").exists():
                self._train(row, job, folder)
            else:
                self._publish(row, job, folder)
        except SQLAlchemyError:
            raise
        except EncoreError as error:
            self._fail(row, str(error))
        except Exception as error:
            full = isinstance(error, OSError) and error.errno in FULL
            _logger.error("job cannot be carried out", exc_info=error, extra={"fields": {"job": job.id}})
            self._fail(row, _DISK_FULL if full else _UNEXPECTED)
        return True

    def _train(self, row: Row[Any], job: Job, folder: JobFolder) -> None:
        if not wait_until_free(folder):
            self._queue.release(job.id, row.attempt)
            return
        self._begin(row, job)
        _check_base(job, self._registry)
        _write_config(job, folder)
        before = RunFolder(folder.run).newest_state()
        trainer = Trainer(folder, self._device)
        try:
            left = self._follow(trainer, row, folder)
        except BaseException:
            trainer.kill()
            raise
        if left == "ended":
            self._conclude(trainer.outcome(), row, job, folder, moved=RunFolder(folder.run).newest_state() != before)
        else:
            self._queue.release(job.id, row.attempt)
            self._jobs.sweep()

    def _follow(self, trainer: Trainer, row: Row[Any], folder: JobFolder) -> Left:
        """Keep the lease and pass on what the run tells, until it ends or is to be ended."""
        beaten = time.monotonic()
        while trainer.running:
            if self._stop.wait(_BEAT_SECONDS):
                trainer.stop()
                return "handed back"
            try:
                ours = self._queue.renew(row.id, row.attempt)
                self._take_over(row, folder)
            except SQLAlchemyError:
                if time.monotonic() - beaten < self._patience:
                    continue
                ours = False  # before another worker can take it
            beaten = time.monotonic()
            if not ours:
                paused = (found := self._find(row.id)) is not None and found.status == "paused"
                trainer.stop() if paused else trainer.kill()
                return "taken away"
        return "ended"

    def _conclude(self, outcome: Outcome, row: Row[Any], job: Job, folder: JobFolder, *, moved: bool) -> None:
        self._take_over(row, folder)
        match outcome.ending:
            case "finished":
                self._publish(row, job, folder)
            case "refused":
                self._fail(row, outcome.message)
            case "crashed":
                _logger.error("training crashed", extra={"fields": {"job": job.id, "log": str(folder.log)}})
                self._fail(row, _UNEXPECTED)
            case "stopped":
                self._queue.release(job.id, row.attempt)
            case "killed":
                deaths = 0 if moved else row.deaths + 1
                if outcome.out_of_memory:
                    self._fail(row, _NO_MEMORY)
                elif deaths >= _DEATHS:
                    self._fail(row, f"training was killed {deaths} times without getting on")
                else:
                    with self._jobs.database.begin() as connection:
                        self._queue.write(connection, job.id, row.attempt, deaths=deaths)
                    self._queue.release(job.id, row.attempt)

    def _publish(self, row: Row[Any], job: Job, folder: JobFolder) -> None:
        with self._queue.kept(job.id, row.attempt):
            result = publish(job, folder, self._registry, self._files)
        self._take_over(row, folder)
        with self._jobs.database.begin() as connection:
            done = self._queue.settle(
                connection,
                job.id,
                row.attempt,
                status="succeeded",
                finished_at=utc_now(),
                updated_at=utc_now(),
                result=result,
            )
            if done:
                tell(connection, job.id, f"New fine-tuned model created: {job.public_name}")
                tell(connection, job.id, "The job has successfully completed", status="succeeded")
        if done:
            tidy(folder)
            return
        self._queue.release(job.id, row.attempt)
        if (found := self._find(job.id)) is None or found.status == "cancelled":
            withdraw(job, self._registry, self._files)
            self._jobs.sweep()

    def _begin(self, row: Row[Any], job: Job) -> None:
        with self._jobs.database.begin() as connection:
            if job.started_at is None and self._queue.write(
                connection, job.id, row.attempt, started_at=utc_now(), updated_at=utc_now()
            ):
                tell(connection, job.id, "Fine-tuning job started", status="running")

    def _fail(self, row: Row[Any], message: str) -> None:
        sentence = f"{message[:1].upper()}{message[1:]}"
        error = {"code": "training_failed", "message": sentence, "param": None}
        values = {"status": "failed", "finished_at": utc_now(), "updated_at": utc_now(), "error": error}
        with self._jobs.database.begin() as connection:
            if self._queue.settle(connection, row.id, row.attempt, **values):
                tell(connection, row.id, sentence, status="failed", level="error")
        self._queue.release(row.id, row.attempt)
        self._jobs.sweep()

    def _take_over(self, row: Row[Any], folder: JobFolder) -> None:
        """Store the run's new events: each once, though a resumed run tells of some steps again."""
        with self._jobs.database.connect() as connection:
            offset, place = connection.execute(select(table.c.offset, table.c.step).where(table.c.id == row.id)).one()
        new = list(read_events(RunFolder(folder.run).events, offset))
        if not new:
            return
        latest = max(place, *(_place(event) for event, _ in new))
        values = {"offset": new[-1][1], "step": latest, "updated_at": utc_now()}
        with self._jobs.database.begin() as connection:
            if not self._queue.write(connection, row.id, row.attempt, **values):
                return
            for event, _ in new:
                if _place(event) > place:
                    place = _place(event)
                    at = event.at.replace(tzinfo=None)
                    tell(connection, row.id, event.message, level=event.level, data=event.data, at=at)

    def _find(self, job_id: str) -> Job | None:
        try:
            return self._jobs.find(job_id)
        except SQLAlchemyError:
            return None


def _place(event: Event) -> int:
    """Where in the run an event belongs: a step's figures, then the epoch's, then that its model is kept."""
    data = event.data or {}
    stage = 1 if "epoch" in data else 2 if data.keys() == {"step"} else 0
    return 3 * int(data.get("step", 0)) + stage


def _check_base(job: Job, registry: Registry) -> None:
    base = Path(str(job.settings.get("base_model", "")))
    if base == registry.folder(base.name) and not base.is_dir():
        raise ModelError("the model to go on from has been deleted; name another one, or a base model")


def _write_config(job: Job, folder: JobFolder) -> None:
    if folder.config.exists():
        return
    train, valid = folder.rows
    files = {"train_file": str(train), "eval_file": str(valid) if valid.exists() else None}
    config = validate_config({**job.settings, **files, "task": job.task, "output_dir": str(folder.run)})
    write_atomically(folder.config, config.to_yaml())
