"""Jobs as requests see them: accepted, listed, changed; on both kinds of database. The worker has tests of its own."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from serving.database import open_database
from serving.errors import RequestError
from serving.files import File, Files, Upload
from serving.job_records import Job, JobFolder, NewJob
from serving.jobs import Jobs


@pytest.fixture
def jobs(tmp_path: Path, database_url: str) -> Jobs:
    return Jobs(tmp_path / "home", open_database(database_url))


@pytest.fixture
def files(tmp_path: Path, jobs: Jobs) -> Files:
    return Files(tmp_path / "home", jobs.database)


def put(files: Files, content: bytes = b"train", *more: bytes, dataset_type: str | None = None) -> File:
    uploads = [Upload("x", io.BytesIO(each)) for each in (content, *more)]
    return files.add(uploads, name="x", purpose="fine-tune", dataset_type=dataset_type)


def accept(jobs: Jobs, files: Files, **values: Any) -> Job:
    return jobs.create(NewJob(**{"task": "classify", "base": "babbage-002", "train": put(files), **values}), files)


def messages(jobs: Jobs, job_id: str) -> list[str]:
    return [event.message for event in jobs.events(job_id, limit=99)[0]]


def test_an_accepted_job_waits_for_its_files_to_be_validated(jobs: Jobs, files: Files) -> None:
    job = accept(jobs, files, name="mine", request={"a": [1]}, settings={"epochs": 2}, valid=put(files, b"valid"))
    assert (job.status, job.name, job.request, job.settings) == ("validating_files", "mine", {"a": [1]}, {"epochs": 2})
    assert jobs.find(job.id) == job and job.active and job.public_name == f"{job.id}-ft"
    assert messages(jobs, job.id)[0].startswith("Created fine-tuning job: ftjob-")


def test_a_full_disk_leaves_no_half_of_a_job(jobs: Jobs, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    train = put(files)
    monkeypatch.setattr("serving.jobs.link_or_copy", full)
    with pytest.raises(OSError, match="No space"):
        accept(jobs, files, train=train)
    assert not list(jobs.folder("x").path.parent.iterdir()) and not jobs.count()


def test_a_job_keeps_its_data_when_its_files_go(jobs: Jobs, files: Files) -> None:
    train, valid = put(files), put(files, b"valid")
    job = accept(jobs, files, train=train, valid=valid)
    assert files.remove(train.id) and files.remove(valid.id)
    assert [path.read_bytes() for path in jobs.folder(job.id).inputs] == [b"train", b"valid"]


def test_a_job_of_a_validated_dataset_starts_with_what_validation_left(jobs: Jobs, files: Files) -> None:
    dataset = put(files, b"raw", b"raw", dataset_type="single-label-classification-finetune-input")
    for part in (0, 1):
        files.prepared(dataset.id, part).write_bytes(b"rows %d" % part)
    job = accept(jobs, files, train=dataset)
    assert job.status == "queued"
    assert [path.read_bytes() for path in jobs.folder(job.id).rows] == [b"rows 0", b"rows 1"]


def test_a_file_that_goes_in_the_same_moment_makes_no_job(jobs: Jobs, files: Files) -> None:
    train = put(files)
    files.remove(train.id)
    with pytest.raises(RequestError) as caught:
        accept(jobs, files, train=train)
    assert caught.value.status == 400 and jobs.count() == 0


def test_states_and_what_they_forbid(jobs: Jobs, files: Files) -> None:
    job = accept(jobs, files)
    assert jobs.pause(job.id).status == "paused"
    with pytest.raises(RequestError, match="already paused") as caught:
        jobs.pause(job.id)
    assert (caught.value.status, caught.value.code) == (400, "invalid_job_state")
    assert jobs.resume(job.id).status == "validating_files"
    with pytest.raises(RequestError, match="is validating files"):
        jobs.resume(job.id)
    ended = jobs.cancel(job.id)
    assert ended.status == "cancelled" and ended.finished_at is not None and not ended.active
    for act in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(RequestError, match="already cancelled"):
            act(job.id)
        with pytest.raises(RequestError) as caught:
            act("00000000-0000-4000-8000-000000000000")
        assert caught.value.status == 404
    assert messages(jobs, job.id)[:3] == ["The job was cancelled", "The job was resumed", "The job was paused"]


def test_a_removed_job_is_not_seen_and_its_folder_goes(jobs: Jobs, files: Files) -> None:
    job, other = accept(jobs, files), accept(jobs, files)
    jobs.remove(job.id)
    assert jobs.find(job.id) is None and jobs.count() == 1
    jobs.sweep()
    assert not jobs.folder(job.id).path.exists() and jobs.folder(other.id).path.exists()
    page, more = jobs.list(limit=5, after=job.id, newest_first=False)
    assert ([each.id for each in page], more) == ([other.id], False)


def test_pages_of_jobs_and_events(jobs: Jobs, files: Files) -> None:
    made = [accept(jobs, files).id for _ in range(4)]
    page, more = jobs.list(limit=3)
    assert ([job.id for job in page], more) == (made[:0:-1], True)
    assert [job.id for job in jobs.list(limit=3, offset=3, newest_first=False)[0]] == made[3:]
    jobs.pause(made[0])
    newest, more = jobs.events(made[0], limit=1)
    assert more and newest[0].status == "paused"
    rest, more = jobs.events(made[0], limit=5, after=newest[0].id)
    assert [event.status for event in rest] == ["validating_files"] and not more
    for wrong in (lambda: jobs.list(limit=1, after="x"), lambda: jobs.events(made[0], limit=1, after="x")):
        with pytest.raises(RequestError):
            wrong()


def test_two_names_for_models_never_meet(jobs: Jobs, files: Files) -> None:
    accept(jobs, files, model_name="ft:a:b::12345678")
    with pytest.raises(Exception, match=r"(?i)unique"):
        accept(jobs, files, model_name="ft:a:b::12345678")


def test_a_folder_says_what_lies_where(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert {path.parent for path in (*folder.inputs, *folder.rows, folder.config, folder.run, folder.log)} == {tmp_path}
