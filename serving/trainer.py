"""One training process: started as a person would start it, tied to this process, read by what it leaves behind."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.job_records import JobFolder
from serving.settings import foreign_environment
from training.tether import STOPPED

Ending = Literal["finished", "stopped", "refused", "crashed", "killed"]

_LOCK_SECONDS = 20.0
"""How long the run folder may still be held by a trainer that is on its way out."""
_STOP_SECONDS = 15.0
"""From letting go of a trainer to killing it; it leaves by itself in ten."""
_TAIL = 65_536
_NICE = 10
"""Priority beside the server's: a request must not wait for a training step."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training process ended."""

    ending: Ending
    message: str = ""
    """For `refused`: the reason in one sentence."""
    out_of_memory: bool = False
    """For `killed`: the system has killed something for want of memory meanwhile."""


class Trainer:
    """A running `python -m training.train` of one job, which is `accelerate launch` for one process without its start.

    It has a session of its own, so that it can be ended with all its children, and the other end of its stdin is held
    here: when this process ends, in whatever way, so does the training.
    """

    def __init__(self, folder: JobFolder, device: str) -> None:
        """Start training in a job's folder, on `cpu` or on the GPU of that number."""
        self._folder = folder
        self._log_start = folder.log.stat().st_size if folder.log.exists() else 0
        self._kills = _out_of_memory_kills()
        with folder.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "training.train", "--config", str(folder.config)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(device),
                start_new_session=True,
            )
        _give_way(self._process.pid)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to save its state and leave; wait until it has, or make it."""
        self._let_go()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it, and all it has started, at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._let_go()

    def outcome(self) -> Outcome:
        """What became of it, once it has ended."""
        self.kill()  # what it has started may have outlived it
        status = self._process.wait()
        if status == 0:
            return Outcome("finished")
        if status == STOPPED:
            return Outcome("stopped")
        if status < 0:
            return Outcome("killed", out_of_memory=_out_of_memory_kills() > self._kills)
        errors = re.findall(r"^error: (.+)$", self._said(), re.MULTILINE)
        return Outcome("refused", self._without_paths(errors[-1])) if errors else Outcome("crashed")

    def _said(self) -> str:
        """The end of what it wrote."""
        with self._folder.log.open("rb") as log:
            log.seek(max(self._log_start, self._folder.log.stat().st_size - _TAIL))
            return log.read().decode("utf-8", "replace")

    def _let_go(self) -> None:
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()

    def _without_paths(self, message: str) -> str:
        """Name the job's files as its owner knows them."""
        for path, name in zip(self._folder.rows, ("the training file", "the validation file"), strict=True):
            message = message.replace(str(path), name)
        return message.replace(str(self._folder.run), "the run").replace(str(self._folder.path), "the job's folder")


def wait_until_free(folder: JobFolder) -> bool:
    """Wait for an earlier trainer to let go of the run, see `training.run_folder`; False if it does not in time."""
    lock = folder.run / ".lock"
    if not lock.exists():
        return True
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    return False
            else:
                return True
        time.sleep(0.1)


def _environment(device: str) -> dict[str, str]:
    on_cpu = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    where = on_cpu if device == "cpu" else {"CUDA_VISIBLE_DEVICES": device}
    return foreign_environment() | {"ENCORE_TETHER": "1", "PYTHONUNBUFFERED": "1"} | where


def _give_way(session: int) -> None:
    """Lower the priority of a session of its own: that of its processes, and where Linux groups processes by session
    (sched(7), autogroup), that of the group, without which the former only counts within it."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PGRP, session, _NICE)
    with suppress(OSError):
        Path(f"/proc/{session}/autogroup").write_text(str(_NICE))


def _out_of_memory_kills() -> int:
    """How often the system has killed for want of memory: in this container, or else on this machine."""
    for source in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        with suppress(OSError):
            if found := re.search(r"^oom_kill (\d+)$", source.read_text(), re.MULTILINE):
                return int(found[1])
    return 0
