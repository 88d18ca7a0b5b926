"""Rows that several workers take turns at: each row is worked on by one of them, for as long as it keeps its lease.

A row is free while its lease is empty, and again once the lease has run out: then whoever held it has gone. Taking it
counts `attempt` up, and every later write names the attempt it belongs to, so that a worker that was only slow, not
gone, can no longer change anything. All times are the database's.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, and_, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.elements import ColumnElement

from serving.database import now


class Queue:
    """The rows of a table that wait in status `fresh`, and those in `busy` that are being worked on."""

    def __init__(self, database: Engine, table: Table, fresh: str, busy: str, seconds: float) -> None:
        """Let a lease last `seconds`."""
        self._database, self._table, self._fresh, self._busy, self._seconds = database, table, fresh, busy, seconds

    def claim(self, worker: str, *, alone: bool = False) -> Row[Any] | None:
        """Take the oldest free row.

        Args:
            worker: who takes it.
            alone: no other living worker goes by this name, so that what it holds by the database is its own to take
                up again at once.
        """
        table = self._table
        free = or_(table.c.lease.is_(None), table.c.lease < now())
        if alone:
            free = or_(free, table.c.worker == worker)
        waiting = and_(table.c.status.in_((self._fresh, self._busy)), table.c.deleted.is_(False), free)
        oldest = (
            select(table.c.seq).where(waiting).order_by(table.c.seq).limit(1).with_for_update(skip_locked=True)
        ).scalar_subquery()
        taken = (
            update(table)
            .where(table.c.seq == oldest, waiting)
            .values(status=self._busy, worker=worker, lease=now() + self._seconds, attempt=table.c.attempt + 1)
            .returning(*table.c)
        )
        with self._database.begin() as connection:
            return connection.execute(taken).first()

    def renew(self, row_id: str, attempt: int) -> bool:
        """Keep a row for another while; False once it is no longer ours, or no longer to be worked on."""
        change = update(self._table).where(self._ours(row_id, attempt)).values(lease=now() + self._seconds)
        with self._database.begin() as connection:
            return connection.execute(change).rowcount == 1

    def settle(self, connection: Connection, row_id: str, attempt: int, **values: Any) -> bool:
        """Write the outcome and let go of the row, within a transaction; False if it is no longer ours."""
        change = update(self._table).where(self._ours(row_id, attempt)).values(**values, lease=None, worker=None)
        return connection.execute(change).rowcount == 1

    def write(self, connection: Connection, row_id: str, attempt: int, **values: Any) -> bool:
        """Change a row and keep it; False if it is no longer ours."""
        change = update(self._table).where(self._ours(row_id, attempt)).values(**values)
        return connection.execute(change).rowcount == 1

    def release(self, row_id: str, attempt: int) -> None:
        """Let go of a row as it stands: free for others if it is still to be worked on, else at rest."""
        table = self._table
        change = update(table).where(table.c.id == row_id, table.c.attempt == attempt).values(lease=None, worker=None)
        with self._database.begin() as connection:
            connection.execute(change)
            connection.execute(change.where(table.c.status == self._busy).values(status=self._fresh))

    @contextmanager
    def kept(self, row_id: str, attempt: int) -> Generator[None, None, None]:
        """Renew a row while something goes on that cannot; losing it shows when the outcome is written."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self._seconds / 3):
                with suppress(SQLAlchemyError):
                    self.renew(row_id, attempt)

        thread = threading.Thread(target=beat, name="lease")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _ours(self, row_id: str, attempt: int) -> ColumnElement[bool]:
        table = self._table
        return and_(
            table.c.id == row_id,
            table.c.attempt == attempt,
            table.c.status == self._busy,
            table.c.deleted.is_(False),
        )
