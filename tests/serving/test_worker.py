"""The worker as a process: data judged, jobs trained, stopped, paused and resumed, and ended in every way."""

import random
import signal
from pathlib import Path

import pytest

from tests.serving.databases import new_database
from tests.serving.workplace import Workplace, kill, rows
from tests.tiny import make_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def place(tmp_path: Path, base: Path) -> Workplace:
    return Workplace(tmp_path, new_database("sqlite", tmp_path, None), base)


@pytest.fixture
def shared_place(tmp_path: Path, base: Path, postgresql_server: str | None) -> Workplace:
    """One home and PostgreSQL database for several workers."""
    return Workplace(tmp_path, new_database("postgresql", tmp_path, postgresql_server), base)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[dict[str, object], bytes]:
    """What the usual job comes to when nothing happens to it."""
    home = tmp_path_factory.mktemp("undisturbed")
    place = Workplace(home, new_database("sqlite", home, None), base)
    job = place.submit()
    with place.worker() as worker:
        place.await_end(job, worker)
    told = place.told(job)
    assert told[0].startswith("Created") and told[1].startswith("Validating training file: file-")
    assert told[2:4] == ["Files validated, moving job to queued state", "Fine-tuning job started"]
    assert told[4].startswith("Step 1/") and told[-1] == "The job has successfully completed"
    assert told[-2] == f"New fine-tuned model created: {job.id}-ft"
    assert place.registry.find(f"{job.id}-ft") and len(place.registry.epochs(job.id)) == 1
    kept = {path.name for path in place.jobs.folder(job.id).path.iterdir()}
    assert kept == {"config.yaml", "run", "trainer.log"}
    return place.outcome(job)


def test_a_job_told_step_by_step(undisturbed: tuple[dict[str, object], bytes]) -> None:
    result, table = undisturbed
    lines = table.decode().splitlines()
    assert lines[0].startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy")
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(1, int(str(result["steps"])) + 1))


def test_unusable_data_fails_while_another_job_trains(place: Workplace) -> None:
    training = place.submit(epochs=200)
    with place.worker() as worker:
        place.until(lambda: place.saved(training), worker)
        job = place.await_end(place.submit(rows(20) + '{"prompt": "x"}\n'), worker)
        assert job.status == "failed" and job.error is not None and job.finished_at is not None
        assert (job.error["code"], job.error["param"]) == ("invalid_file_format", "training_file")
        assert "Line 21: 'completion' is missing" in job.error["message"]
        assert place.told(job)[-1] == job.error["message"]
        place.until(lambda: not place.jobs.folder(job.id).path.exists(), worker)
        assert place.status(training) == "running"

        place.jobs.cancel(training.id)  # and nothing is left of it
        place.until(lambda: not place.trainers(training), worker)
        place.until(lambda: not place.jobs.folder(training.id).path.exists(), worker)
        assert place.status(training) == "cancelled" and place.registry.find(f"{training.id}-ft") is None


def test_a_job_that_cannot_be_trained_fails_in_a_sentence(place: Workplace) -> None:
    job = place.submit(base_model=str(place.home / "nothing"))
    with place.worker() as worker:
        job = place.await_end(job, worker)
    assert job.status == "failed" and job.error is not None and job.error["code"] == "training_failed"
    assert "nothing" in job.error["message"] and "\n" not in job.error["message"]


@pytest.mark.long
def test_pause_keeps_what_was_done(place: Workplace, undisturbed: tuple[dict[str, object], bytes]) -> None:
    job = place.submit()
    with place.worker() as worker:
        place.until(lambda: place.saved(job) > 3, worker)
        assert place.jobs.pause(job.id).status == "paused"
        place.until(lambda: not place.trainers(job), worker)
        saved = place.saved(job)
        assert saved > 3 and place.status(job) == "paused"
        place.jobs.resume(job.id)
        place.until(lambda: place.status(job) == "running", worker)
        assert place.await_end(job, worker).status == "succeeded"
    assert place.outcome(job) == undisturbed
    assert f"resuming at step {saved}" in place.jobs.folder(job.id).log.read_text()


@pytest.mark.long
def test_a_worker_that_is_told_to_end_hands_its_job_to_the_next(
    place: Workplace, undisturbed: tuple[dict[str, object], bytes]
) -> None:
    job = place.submit()
    with place.worker() as worker:
        place.until(lambda: place.saved(job), worker)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        assert place.status(job) == "queued" and not place.trainers(job)
    with place.worker() as worker:
        place.await_end(job, worker)
    assert place.outcome(job) == undisturbed


@pytest.mark.slow
def test_killed_at_random_a_job_ends_as_if_nothing_had_happened(
    place: Workplace, undisturbed: tuple[dict[str, object], bytes]
) -> None:
    chance = random.Random(0)
    job = place.submit()
    worker = place.start_worker()
    for victim in ("worker", "trainer", "trainer", "worker"):
        seen = place.saved(job)
        place.until(lambda seen=seen: place.saved(job) > seen or not place.jobs.get(job.id).active, worker)
        place.until(lambda: chance.random() < 0.05, worker)
        trainers = place.trainers(job)
        if victim == "worker":
            kill(worker)
            worker.wait()
            place.until(lambda trainers=trainers: not any(process.is_running() for process in trainers))
            worker = place.start_worker()
        else:
            for trainer in trainers:
                kill(trainer)
    try:
        place.await_end(job, worker)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    assert place.outcome(job) == undisturbed
    told = place.told(job)
    assert len(told) == len(set(told)) and told.count("Fine-tuning job started") == 1


@pytest.mark.long
def test_two_workers_share_a_queue_and_one_takes_over_from_the_other(
    shared_place: Workplace, undisturbed: tuple[dict[str, object], bytes]
) -> None:
    place = shared_place
    jobs = [place.submit() for _ in range(2)]
    with place.worker("0") as first, place.worker("1") as second:
        place.until(lambda: all(place.saved(job) for job in jobs), second)
        victims = [place.trainers(job) for job in jobs]
        kill(first)
        for job in jobs:
            place.await_end(job, second)
    assert all(victims)
    for job in jobs:
        assert place.outcome(job) == undisturbed
        assert place.told(job).count("Fine-tuning job started") == 1
