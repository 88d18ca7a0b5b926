"""The process that carries out jobs: `python -m serving.worker`. A server starts one by itself.

It validates uploaded data in one thread and trains in others, one for each device, so that no file waits behind a
training. Several workers, on several machines with one PostgreSQL database and one shared home, take turns at the same
queue. Ended with SIGTERM it lets its trainings save their state and hands their jobs back.
"""

import argparse
import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from serving import log
from serving.database import open_database
from serving.files import Files
from serving.jobs import Jobs
from serving.registry import Registry
from serving.settings import Settings, load_settings
from serving.training_lane import TrainingLane
from serving.validation_lane import ValidationLane
from training.errors import EncoreError

_SWEEP_SECONDS = 30.0
_IDLE_SECONDS = 0.5
_PAUSE_SECONDS = 5.0
"""After an error that is not the job's."""

_logger = logging.getLogger(__name__)


class Worker:
    """The lanes of one worker process."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        """Work on the queue of a home and an open database."""
        self._home = settings.home
        self._jobs, self._files = Jobs(settings.home, database), Files(settings.home, database)
        registry = Registry(settings.home, database)
        self._stop = threading.Event()
        host = socket.gethostname()
        validation = ValidationLane(settings, self._jobs, self._files, f"{host}/{secrets.token_hex(8)}")
        self._lanes: list[tuple[str, Callable[[], bool], Path | None]] = [("validation", validation.once, None)]
        for device in training_devices(settings):
            lane = TrainingLane(settings, self._jobs, self._files, registry, f"{host}/{device}", device, self._stop)
            self._lanes.append((f"training on {device}", lane.once, self._home / f"slot-{host}-{device}.lock"))

    def run(self) -> None:
        """Work until `stop`."""
        threads = [threading.Thread(target=partial(self._run_lane, *lane), name=lane[0]) for lane in self._lanes]
        for thread in threads:
            thread.start()
        while not self._stop.is_set():
            self._guard("housekeeping", self._sweep)
            self._stop.wait(_SWEEP_SECONDS)
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """Hand back what is being worked on, and end."""
        self._stop.set()

    def _run_lane(self, name: str, once: Callable[[], bool], lock: Path | None) -> None:
        """Take one thing after the other; of all processes of this machine, one at a time trains on a device."""
        held = self._hold(lock) if lock else None
        while not self._stop.is_set():
            if not self._guard(name, once):
                self._stop.wait(_IDLE_SECONDS)
        if held:
            held.close()

    def _hold(self, lock: Path) -> IO[str] | None:
        file = lock.open("a")
        while not self._stop.is_set():
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            self._stop.wait(_IDLE_SECONDS)
        return file

    def _guard(self, name: str, work: Callable[[], bool | None]) -> bool:
        """Do something that must not end the worker: a database may go away and come back."""
        try:
            return bool(work())
        except SQLAlchemyError as error:
            reason = str(error).splitlines()[0][:200]  # what follows may quote rows
            _logger.error("the database does not answer", extra={"fields": {"lane": name, "reason": reason}})
        except Exception as error:
            _logger.error("unexpected error", exc_info=error, extra={"fields": {"lane": name}})
        self._stop.wait(_PAUSE_SECONDS)
        return False

    def _sweep(self) -> None:
        self._jobs.sweep()
        self._files.sweep()


def training_devices(settings: Settings) -> list[str]:
    """Where this machine trains: `cpu`, or the numbers of its GPUs."""
    if settings.train_devices != "auto":
        return settings.train_devices.split(",")
    program = shutil.which("nvidia-smi")
    if settings.device == "cpu" or program is None:
        return ["cpu"]
    answer = subprocess.run(
        [program, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    found = answer.stdout.split() if answer.returncode == 0 else []
    return found[1:] or found or ["cpu"]


def _leave_with_parent(worker: Worker) -> None:
    """End when the server that started this process has ended, however it did."""
    while os.read(0, 4096):
        pass
    worker.stop()


def main() -> None:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m serving.worker", description="Validate data and train models.")
    parser.add_argument("--tethered", action="store_true", help="end when stdin ends; for the server's own worker")
    arguments = parser.parse_args()
    log.configure()
    try:
        settings = load_settings()
        worker = Worker(settings, open_database(settings.database))
    except EncoreError as error:
        sys.exit(f"{error}")
    except OSError as error:
        sys.exit(f"the home folder cannot be used: {error}")

    def leave(_number: int, _frame: object) -> None:
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    if arguments.tethered:
        threading.Thread(target=_leave_with_parent, args=[worker], daemon=True).start()
    began = time.monotonic()
    worker.run()
    _logger.info("worker ended", extra={"fields": {"seconds": round(time.monotonic() - began)}})


if __name__ == "__main__":
    main()
