"""Pages of a table in the order in which its rows were made."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Table, select

from serving.errors import RequestError


def page(
    database: Engine,
    table: Table,
    where: Sequence[ColumnElement[bool]],
    *,
    limit: int,
    after: str | None = None,
    newest_first: bool = True,
    offset: int = 0,
    among: Sequence[ColumnElement[bool]] = (),
) -> tuple[Sequence[Row[Any]], bool]:
    """Some rows of a table, and whether there are more.

    Args:
        database: where the table is.
        table: has the columns `seq`, counted up, and `id`.
        where: what the rows must meet.
        limit: the most to give.
        after: id of the last row seen; it need not meet `where` any more.
        newest_first: the order.
        offset: rows to pass over.
        among: what the row `after` must meet.

    Raises:
        RequestError: there never was a row `after`.
    """
    query = select(table).where(*where)
    with database.connect() as connection:
        if after is not None:
            place = connection.scalar(select(table.c.seq).where(table.c.id == after, *among))
            if place is None:
                message = f"invalid request: after is not the id of one of these {table.name}"
                raise RequestError(400, message, param="after", code="invalid_value")
            query = query.where(table.c.seq < place if newest_first else table.c.seq > place)
        order = table.c.seq.desc() if newest_first else table.c.seq
        rows = connection.execute(query.order_by(order).offset(offset).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit
