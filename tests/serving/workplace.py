"""A home with a queue, and real worker processes that are ended in every way."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from serving.database import open_database
from serving.files import File, Files, Upload
from serving.job_records import Job, JobStatus, NewJob
from serving.jobs import Jobs
from serving.registry import Registry
from tests.serving.live import ROOT, environment
from tests.training.conftest import topic_rows

PATIENCE = 120.0
"""Seconds after which a test gives up waiting; nothing passes or fails by how long it took."""


class Workplace:
    """A home, and what a test wants to do and see there."""

    def __init__(self, home: Path, database: str, base: Path) -> None:
        self.home, self.url, self.base = home, database, base
        engine = open_database(database)
        self.jobs, self.files, self.registry = Jobs(home, engine), Files(home, engine), Registry(home, engine)

    def upload(self, content: str) -> File:
        return self.files.add(
            [Upload("rows.jsonl", io.BytesIO(content.encode()))], name="rows.jsonl", purpose="fine-tune"
        )

    def submit(self, content: str | None = None, **settings: Any) -> Job:
        """A job of prompts and completions that takes some seconds of training."""
        usual = {"base_model": str(self.base), "epochs": 3, "save_seconds": 0.2, "seed": 7, "learning_rate": 0.002}
        usual |= {"early_stopping_patience": None, "keep_epochs": 2, **settings}
        return self.jobs.create(
            NewJob("classify", "babbage-002", self.upload(content or rows(240)), settings=usual), self.files
        )

    @contextlib.contextmanager
    def worker(self, devices: str = "cpu") -> Iterator[subprocess.Popen[bytes]]:
        """A worker of its own; SIGTERM at the end, if it still runs."""
        process = self.start_worker(devices)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)

    def start_worker(self, devices: str = "cpu") -> subprocess.Popen[bytes]:
        settings = {"ENCORE_DATABASE_URL": self.url, "ENCORE_TRAIN_DEVICES": devices, "ENCORE_LEASE_SECONDS": "3"}
        env = environment(self.home, ENCORE_DEFAULT_BASE=str(self.base), OMP_NUM_THREADS="1", **settings)
        with (self.home / "worker.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "serving.worker"], cwd=ROOT, env=env, stdout=log, stderr=log)

    def until(self, reached: Callable[[], Any], process: subprocess.Popen[bytes] | None = None) -> None:
        """Wait for something to be so, while a worker lives."""
        end = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < end, self.story()
            assert process is None or process.poll() is None, self.story()
            time.sleep(0.05)

    def await_end(self, job: Job, process: subprocess.Popen[bytes] | None = None) -> Job:
        self.until(lambda: not self.jobs.get(job.id).active, process)
        return self.jobs.get(job.id)

    def status(self, job: Job) -> JobStatus:
        return self.jobs.get(job.id).status

    def told(self, job: Job) -> list[str]:
        """The messages of a job's events, oldest first."""
        return [event.message for event in self.jobs.events(job.id, limit=999)[0]][::-1]

    def trainers(self, job: Job) -> list[psutil.Process]:
        """Every process that trains for a job."""
        config = str(self.jobs.folder(job.id).config)
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if config in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def saved(self, job: Job) -> int:
        """The step of the last state that a job's run has saved."""
        states = (self.jobs.folder(job.id).run / "state").glob("step-*")
        return max((int(path.name.split("-")[1]) for path in states), default=0)

    def outcome(self, job: Job) -> tuple[dict[str, Any], bytes]:
        """What must not depend on how often a job was disturbed."""
        found = self.jobs.get(job.id)
        assert found.status == "succeeded" and found.result, (found.error, self.story())
        result = {name: value for name, value in found.result.items() if name != "result_file"}
        return result, self.files.path(found.result["result_file"]).read_bytes()

    def story(self) -> str:
        log = self.home / "worker.log"
        return log.read_text()[-4000:] if log.exists() else "no worker was started"


def rows(count: int, seed: int = 0) -> str:
    """So many rows of prompt and completion."""
    pairs = ({"prompt": f"{row['text']} ->", "completion": f" {row['label']}"} for row in topic_rows(count, seed=seed))
    return "".join(json.dumps(pair) + "\n" for pair in pairs)


def kill(process: psutil.Process | subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
