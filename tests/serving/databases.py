"""A database of each kind that the queue must work on; PostgreSQL where its programs are installed."""

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

KINDS = ("sqlite", "postgresql")
_PROGRAMS = [Path("/usr/local/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


@contextlib.contextmanager
def postgresql() -> Iterator[str | None]:
    """Run a PostgreSQL server of our own, reachable by a socket alone; its URL, or None where it is not installed."""
    found = shutil.which("initdb", path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, _PROGRAMS)]))
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    if found is None or (user and user not in {known.pw_name for known in pwd.getpwall()}):
        yield None
        return
    programs = Path(found).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short, as a socket's path must be
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "encore", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True, capture_output=True, user=user, cwd=folder,
    )  # fmt: skip
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c shared_buffers=16MB"
    control = [programs / "pg_ctl", "-D", data, "-w"]
    try:
        subprocess.run(
            [*control, "-l", folder / "log", "-o", options, "start"],
            check=True,
            stdout=subprocess.DEVNULL,
            user=user,
            cwd=folder,
        )
        yield f"postgresql+psycopg://encore@/postgres?host={folder}"
    finally:
        subprocess.run(
            [*control, "-m", "immediate", "stop"], check=False, stdout=subprocess.DEVNULL, user=user, cwd=folder
        )
        shutil.rmtree(folder, ignore_errors=True)


def new_database(kind: str, folder: Path, server: str | None) -> str:
    """The URL of an empty database."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'encore.db'}"
    if server is None:
        pytest.skip("PostgreSQL is not installed")
    name = f"test_{secrets.token_hex(6)}"
    with create_engine(server, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")
