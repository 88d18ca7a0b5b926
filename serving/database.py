"""The tables, and a connection to them: an SQLite file by default, PostgreSQL by URL."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable
from sqlalchemy.sql.functions import FunctionElement

from serving.disk import make_private
from training.errors import ConfigError

metadata = MetaData()


class now(FunctionElement[float]):  # reads as the SQL function it is
    """Seconds since 1970 by the database's clock, the one clock that all machines of a queue share."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def _lease() -> list[Column[Any]]:
    """Who works on a row, until when, and for which time; see `serving.leases`."""
    return [
        Column("worker", String(256)),
        Column("lease", Float),
        Column("attempt", Integer, nullable=False, server_default="0"),
    ]


models = Table(
    "models",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(256), unique=True),
    # "adding" until the folder is in place, "removing" once it is to go; only "ready" ones are seen.
    Column("state", String(16), nullable=False),
    Column("task", String(32), nullable=False),
    Column("problem_type", String(64)),
    Column("labels", Integer, nullable=False),
    Column("max_length", Integer, nullable=False),
    Column("base_model", Text, nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("job_id", String(36)),  # the job that trained it, if one did
    Column("step", Integer),  # set for the model of one epoch, which stands beside the finished one
    Column("metrics", JSON),
)

files = Table(
    "files",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),  # order of creation
    Column("id", String(36), nullable=False, unique=True),
    Column("name", Text, nullable=False),  # as its owner calls it; never part of a path
    Column("purpose", String(32), nullable=False),
    Column("dataset_type", String(64)),
    Column("status", String(16), nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
    Column("expires_at", DateTime),
    Column("options", JSON, nullable=False),
    Column("parts", JSON, nullable=False),
    Column("report", JSON, nullable=False),
    Column("deleted", Boolean, nullable=False),  # the row stays: lists go on after it
    *_lease(),
)

jobs = Table(
    "jobs",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("status", String(20), nullable=False),
    Column("task", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("model_name", String(256), unique=True),  # of the model to be, besides its id
    Column("base", Text, nullable=False),  # as asked for
    Column("request", JSON, nullable=False),  # what a dialect wants to show again
    Column("settings", JSON, nullable=False),  # of the training run
    Column("train_file", String(36), nullable=False),
    Column("valid_file", String(36)),
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
    Column("started_at", DateTime),
    Column("finished_at", DateTime),
    Column("validated", Boolean, nullable=False),
    Column("error", JSON),
    Column("result", JSON),
    Column("deleted", Boolean, nullable=False),
    Column("offset", Integer, nullable=False),  # how much of the run's event stream has been taken over
    Column("step", Integer, nullable=False),  # the last one told of
    Column("deaths", Integer, nullable=False),  # of trainers that were killed since a state was last saved
    *_lease(),
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("job_id", String(36), nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("status", String(20)),  # for events that tell of a change
    Column("level", String(8), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON),
    Index("events_of_job", "job_id", "seq"),
)


def utc_now() -> datetime:
    """The present as the tables have it: UTC without a zone, as SQLite has none."""
    return datetime.now(UTC).replace(tzinfo=None)


def zoned(value: datetime) -> datetime:
    """A moment of the tables with its zone."""
    return value.replace(tzinfo=UTC)


def open_database(url: str) -> Engine:
    """Connect, and create the tables and columns that are missing.

    Raises:
        ConfigError: the URL is not one, its driver is not installed, or the database does not answer.
    """
    try:
        target = make_url(url)
        if target.get_backend_name() == "sqlite" and target.database:
            make_private(Path(target.database).parent)
            Path(target.database).touch(0o600)  # what SQLite puts beside it gets the same mode
        if target.drivername in ("postgresql", "postgres"):
            target = target.set(drivername="postgresql+psycopg")
        engine = create_engine(target, pool_pre_ping=True, hide_parameters=True)  # errors are logged
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
        with engine.begin() as connection:
            _create(connection)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"ENCORE_DATABASE_URL cannot be used: {_first_line(error)}") from None
    except (OperationalError, DBAPIError, OSError) as error:
        raise ConfigError(
            f"the database cannot be opened: {_first_line(getattr(error, 'orig', None) or error)}"
        ) from None
    return engine


def _create(connection: Connection) -> None:
    """Bring the database to the present tables; several processes may start at once."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7103)")  # IF NOT EXISTS is no lock there
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
        known = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:  # from a version before the column
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=10000")  # first, so that switching to WAL waits too
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]
