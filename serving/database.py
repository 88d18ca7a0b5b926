"""The tables, and a connection to them: an SQLite file by default, PostgreSQL by URL."""

from pathlib import Path
from typing import Any

from sqlalchemy import Column, DateTime, Engine, Integer, MetaData, String, Table, Text, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.schema import CreateTable

from training.errors import ConfigError

metadata = MetaData()

models = Table(
    "models",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), unique=True),
    # "adding" until the folder is in place, "removing" once it is to go; only "ready" ones are seen.
    Column("state", String(16), nullable=False),
    Column("task", String(32), nullable=False),
    Column("problem_type", String(64)),
    Column("labels", Integer, nullable=False),
    Column("max_length", Integer, nullable=False),
    Column("base_model", Text, nullable=False),
    Column("created_at", DateTime, nullable=False),  # UTC without a zone: SQLite has none
)


def open_database(url: str) -> Engine:
    """Connect, and create the tables that are missing.

    Raises:
        ConfigError: the URL is not one, its driver is not installed, or the database does not answer.
    """
    try:
        target = make_url(url)
        if target.get_backend_name() == "sqlite" and target.database:
            Path(target.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(target, pool_pre_ping=True)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
        with engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"ENCORE_DATABASE_URL cannot be used: {_first_line(error)}") from None
    except (OperationalError, DBAPIError, OSError) as error:
        raise ConfigError(
            f"the database cannot be opened: {_first_line(getattr(error, 'orig', None) or error)}"
        ) from None
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=10000")  # first, so that switching to WAL waits too
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]
