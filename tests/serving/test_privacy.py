"""Who may look at what: the home on the disk, and what an error tells the log."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from serving.database import files, open_database
from serving.files import Files
from serving.jobs import Jobs
from serving.registry import Registry
from serving.settings import Settings
from tests.serving.databases import new_database
from tests.serving.hostile import WORD
from tests.serving.workplace import Workplace, rows
from tests.tiny import make_base

EVERYONE = stat.S_IRWXG | stat.S_IRWXO


@pytest.fixture
def generous() -> Iterator[None]:
    """A process that would let everyone read and write what it creates."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_all(home: Path) -> Any:
    database = open_database(Settings(home=home).database)
    for part in (Files, Jobs, Registry):
        part(home, database)
    return database


@pytest.mark.usefixtures("generous")
def test_a_new_home_is_its_owners_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    open_all(home)
    assert not home.stat().st_mode & EVERYONE and not home.parent.stat().st_mode & EVERYONE


@pytest.mark.usefixtures("generous")
def test_in_a_home_that_was_there_nothing_can_be_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    database = open_all(tmp_path)
    with database.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        found = list(tmp_path.iterdir())
        assert len(found) >= 6 and any(path.name == "encore.db-wal" for path in found)
        assert not [path for path in found if path.stat().st_mode & EVERYONE]
    assert tmp_path.stat().st_mode & 0o777 == 0o777


def test_an_error_of_the_database_has_no_values_in_it(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(IntegrityError) as error, database.begin() as connection:
        connection.execute(insert(files).values(id="private words"))
    assert "private" not in str(error.value)


@pytest.mark.slow
def test_what_a_training_says_has_no_rows_in_it(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "home", new_database("sqlite", tmp_path, None), make_base(tmp_path / "base"))
    content = (
        rows(120)
        .replace('{"prompt": "', f'{{"prompt": "{WORD} ')
        .replace('"completion": " ', f'"completion": " {WORD}')
    )
    broken = place.submit(content + f'{{"prompt": "{WORD}", "completion": {WORD}}}\n')
    trained = place.submit(content, epochs=1)
    with place.worker() as worker:
        assert place.await_end(broken, worker).status == "failed"
        assert place.await_end(trained, worker).status == "succeeded", place.story()
    logs = [path for path in place.home.rglob("*.log") if path.is_file()]
    assert {path.name for path in logs} == {"worker.log", "trainer.log"}
    for log in logs:
        said = log.read_text()
        assert WORD not in said and "parcel" not in said, said
