"""Uploaded data taken from two queues and judged: datasets as such, the files of jobs. Never waits for a training."""

import logging
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from serving.database import files as file_table
from serving.database import jobs as job_table
from serving.database import utc_now
from serving.disk import FULL
from serving.files import DATASET_KINDS, File, Files, counted, file_of
from serving.job_records import job_of
from serving.jobs import Jobs, tell
from serving.leases import Queue
from serving.names import short
from serving.settings import Settings
from serving.validation import Rules, Verdict, dataset_rules, job_rules, summary, validate

_logger = logging.getLogger(__name__)


class ValidationLane:
    """Validates one thing after the other."""

    def __init__(self, settings: Settings, jobs: Jobs, files: Files, worker: str) -> None:
        """Work as `worker`."""
        self._jobs, self._files, self._worker, self._encoder = jobs, files, worker, settings.default_base
        seconds = settings.lease_seconds
        self._waiting_jobs = Queue(jobs.database, job_table, "validating_files", "validating_files", seconds)
        self._waiting_files = Queue(jobs.database, file_table, "queued", "processing", seconds)

    def once(self) -> bool:
        """Take a job or a dataset if there is one, and judge it; whether there was one."""
        if row := self._waiting_jobs.claim(self._worker):
            with self._waiting_jobs.kept(row.id, row.attempt):
                self._judge_job(row)
            return True
        if row := self._waiting_files.claim(self._worker):
            with self._waiting_files.kept(row.id, row.attempt):
                self._judge_dataset(row)
            return True
        return False

    def _judge_job(self, row: Row[Any]) -> None:
        job, folder = job_of(row), self._jobs.folder(row.id)
        train, valid = folder.inputs
        verdict = _judged(train, valid if valid.exists() else None, job_rules(self._encoder), folder.rows)
        moment = utc_now()
        values: dict[str, Any] = {"status": "queued", "validated": True, "updated_at": moment}
        if verdict.error:
            values = {"status": "failed", "error": verdict.error, "finished_at": moment, "updated_at": moment}
        and_valid = f" and validation file: file-{short(job.valid_file)}" if job.valid_file else ""
        with self._jobs.database.begin() as connection:
            if not self._waiting_jobs.settle(connection, row.id, row.attempt, **values):
                return
            tell(connection, job.id, f"Validating training file: file-{short(job.train_file)}{and_valid}")
            for warning in verdict.warnings:
                tell(connection, job.id, warning, level="warn")
            if verdict.error:
                tell(connection, job.id, verdict.error["message"], status="failed", level="error")
            else:
                tell(connection, job.id, "Files validated, moving job to queued state", status="queued")
        if verdict.error:
            self._jobs.sweep()  # nobody needs its rows any more

    def _judge_dataset(self, row: Row[Any]) -> None:
        file = file_of(row)
        kind = DATASET_KINDS[file.dataset_type or ""]
        rules = dataset_rules(self._encoder, kind, file.options)
        targets = (self._files.prepared(file.id, 0), self._files.prepared(file.id, 1))
        valid = self._files.path(file.id, 1) if len(file.parts) > 1 else None
        verdict = _judged(self._files.path(file.id), valid, rules, targets)
        with self._jobs.database.begin() as connection:
            self._waiting_files.settle(connection, row.id, row.attempt, **_dataset_values(file, verdict))


def _dataset_values(file: File, verdict: Verdict) -> dict[str, Any]:
    metrics = summary((verdict.train, verdict.valid))
    report = {
        "error": verdict.error["message"] if verdict.error else "",
        "warnings": list(verdict.warnings),
        "metrics": metrics,
    }
    values: dict[str, Any] = {"status": "failed" if verdict.error else "validated", "report": report}
    if len(metrics) == len(file.parts):
        values["parts"] = counted(file.parts, [part["rows"] for part in metrics])
    return values | {"updated_at": utc_now()}


def _judged(train: Path, valid: Path | None, rules: Rules, targets: tuple[Path, Path]) -> Verdict:
    try:
        return validate(train, valid, rules, targets)
    except Exception as error:  # left open, the same would be tried again for ever
        _logger.error("data cannot be validated", exc_info=error)
        reason = "it could not be carried out; the server's log has the reason"
        if isinstance(error, OSError):
            reason = (
                "the disk is full; make room and try again" if error.errno in FULL else "it cannot be read or written"
            )
        return Verdict(
            {"code": "training_failed", "message": f"Validation ended: {reason}", "param": None}, (), None, None
        )
