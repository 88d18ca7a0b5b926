"""Stored files: their bytes, their lists, their end; on both kinds of database."""

import io
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from serving.database import files as table
from serving.database import open_database
from serving.errors import RequestError
from serving.files import File, Files, Upload


@pytest.fixture
def files(tmp_path: Path, database_url: str) -> Files:
    return Files(tmp_path / "home", open_database(database_url))


def put(files: Files, *contents: bytes, name: str = "a.jsonl", purpose: str = "fine-tune", **more: str) -> File:
    uploads = [Upload(f"part-{index}", io.BytesIO(content)) for index, content in enumerate(contents)]
    return files.add(uploads, name=name, purpose=purpose, dataset_type=more.get("dataset_type"))


def test_bytes_come_back_as_they_went_in(files: Files) -> None:
    content = os.urandom(3_000_000)
    added = put(files, content, b"")
    assert files.find(added.id) == added
    assert (files.path(added.id).read_bytes(), files.path(added.id, 1).read_bytes()) == (content, b"")
    assert [part.bytes for part in added.parts] == [3_000_000, 0] and added.bytes == files.usage() == 3_000_000
    assert added.status == "validated"


def test_a_dataset_waits_for_validation(files: Files) -> None:
    assert put(files, b"x", dataset_type="reranker-finetune-input").status == "queued"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\x00b" * 100, "x" * 5000, "", ".", "é\n🎉"])
def test_a_name_is_never_part_of_a_path(files: Files, tmp_path: Path, name: str) -> None:
    name = name.replace("\x00", "")
    added = put(files, b"1", name=name)
    assert files.find(added.id) == added and added.name == name
    inside = {path.relative_to(tmp_path / "home").as_posix() for path in (tmp_path / "home").rglob("*")}
    assert {f"files/{added.id}", f"files/{added.id}/0"} < inside and not any("passwd" in path for path in inside)


def test_pages_in_both_directions_go_on_after_a_file_that_is_gone(files: Files) -> None:
    added = [put(files, b"1").id for _ in range(5)]
    page, more = files.list(limit=2)
    assert ([file.id for file in page], more) == (added[:2:-1], True)
    files.remove(added[3])
    page, more = files.list(limit=2, after=added[3])
    assert ([file.id for file in page], more) == ([added[2], added[1]], True)
    page, more = files.list(limit=9, after=added[1], newest_first=False)
    assert ([file.id for file in page], more) == ([added[2], added[4]], False)
    with pytest.raises(RequestError):
        files.list(limit=2, after="never")


def test_removal_is_at_once_and_once(files: Files) -> None:
    added = put(files, b"1")
    assert files.remove(added.id) and not files.remove(added.id)
    assert files.find(added.id) is None and not files.path(added.id).exists() and files.usage() == 0


def test_what_has_expired_is_gone(files: Files, database_url: str) -> None:
    added = files.add([Upload("a", io.BytesIO(b"1"))], name="a", purpose="fine-tune", lifetime=3600)
    assert added.expires_at is not None and (added.expires_at - added.created_at).total_seconds() == 3600
    with open_database(database_url).begin() as connection:
        connection.execute(update(table).values(expires_at=datetime(2020, 1, 1, tzinfo=UTC).replace(tzinfo=None)))
    assert files.find(added.id) is None and files.list(limit=9) == ([], False) and not files.remove(added.id)
    os.utime(files.path(added.id).parent, (0, 0))
    files.sweep()
    assert not files.path(added.id).parent.exists()


def test_a_sweep_takes_what_a_crash_left_and_nothing_else(files: Files, tmp_path: Path) -> None:
    kept = put(files, b"1")
    orphan, fresh = tmp_path / "home" / "files" / "orphan", tmp_path / "home" / "files" / "fresh"
    for folder in (orphan, fresh):
        folder.mkdir()
    for folder in (orphan, files.path(kept.id).parent):
        os.utime(folder, (0, 0))
    files.sweep()
    assert not orphan.exists() and fresh.exists() and files.path(kept.id).exists()


def test_adding_under_a_known_id_changes_nothing(files: Files) -> None:
    first = put(files, b"1")
    again = files.add([Upload("b", io.BytesIO(b"22"))], name="b", purpose="fine-tune", file_id=first.id)
    assert again == first and files.path(first.id).read_bytes() == b"1"


def test_a_full_disk_leaves_nothing_behind(files: Files, tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        files.add([Upload("a", Full())], name="a", purpose="fine-tune")
    assert files.list(limit=9) == ([], False)
    assert not list((tmp_path / "home" / "files").iterdir()) and not list((tmp_path / "home" / "uploads").iterdir())
