"""The real server, its worker and its trainers, killed again and again while jobs go on. Minutes: `make test-long`."""

import contextlib
import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import psutil
import pytest

from serving.job_records import Job
from tests.serving.databases import new_database
from tests.serving.live import Live, serve
from tests.serving.workplace import Workplace, kill
from tests.tiny import make_base

KILLS = int(os.environ.get("KILLS", "20"))
"""Of each kind of victim."""
SETTINGS = {"epochs": 12}


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Workplace:
    return Workplace(tmp_path, database_url, make_base(tmp_path / "tiny"))


def children(live: Live, *words: str) -> list[psutil.Process]:
    """Processes below the server whose command line has all the words."""
    assert live.process is not None
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(live.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if all(any(word in part for part in process.cmdline()) for word in words):
                    found.append(process)
    return found


def victims(place: Workplace, live: Live, kind: str, job: Job) -> list[psutil.Process]:
    match kind:
        case "server":
            assert live.process is not None
            return psutil.Process(live.process.pid).children()
        case "worker":
            return children(live, "serving.worker")
        case _:
            return place.trainers(job)


@pytest.mark.long
def test_no_job_is_lost_or_disturbed_by_whatever_is_killed(place: Workplace) -> None:
    chance = random.Random(1)
    settings = {
        "ENCORE_DATABASE_URL": place.url,
        "ENCORE_DEFAULT_BASE": str(place.base),
        "ENCORE_LEASE_SECONDS": "3",
        "OMP_NUM_THREADS": "1",
    }
    left = Counter({"server": KILLS, "worker": KILLS, "trainer": KILLS})
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(serve(place.home, **settings))
        calm = place.submit(**SETTINGS)
        place.await_end(calm)
        jobs = [place.submit(**SETTINGS)]
        while left:
            if not place.jobs.get(jobs[-1].id).active:
                jobs.append(place.submit(**SETTINGS))
            kind = chance.choice(sorted(left))
            wait = chance.random() * 15
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert live.process is not None
                live.process.wait(wait)
            if found := victims(place, live, kind, jobs[-1]):
                kill(chance.choice(found))
                left[kind] -= 1
                left += Counter()
        for job in jobs:
            place.await_end(job)
            assert place.outcome(job) == place.outcome(calm)
            told = place.told(job)
            assert len(told) == len(set(told)) and told.count("Fine-tuning job started") == 1
            assert not place.trainers(job)


@pytest.mark.slow
def test_a_server_takes_its_worker_and_trainer_with_it(tmp_path: Path) -> None:
    place = Workplace(tmp_path, new_database("sqlite", tmp_path, None), make_base(tmp_path / "tiny"))
    settings = {"ENCORE_DATABASE_URL": place.url, "ENCORE_DEFAULT_BASE": str(place.base), "OMP_NUM_THREADS": "1"}
    with serve(place.home, **settings) as live:
        job = place.submit(epochs=200)
        place.until(lambda: place.saved(job))
        workers, trainers = children(live, "serving.worker"), place.trainers(job)
        assert workers and trainers and live.process is not None
        services = victims(place, live, "server", job)
        for process in (live.process, *services):  # the first would start the others again
            kill(process)
        live.process.wait()
        place.until(lambda: not any(process.is_running() for process in (*workers, *trainers)))
    assert place.status(job) in ("queued", "running")
