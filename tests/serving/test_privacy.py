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
from serving.models import Registry
from serving.settings import Settings

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
