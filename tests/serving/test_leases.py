"""The queue: who may work on what, on both kinds of database."""

import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from serving.database import files, now, open_database
from serving.leases import Queue

LEASE = 30.0


@pytest.fixture
def database(database_url: str) -> Engine:
    return open_database(database_url)


@pytest.fixture
def queue(database: Engine) -> Queue:
    return Queue(database, files, "queued", "processing", LEASE)


def put(database: Engine, *ids: str, **values: Any) -> None:
    moment = datetime.now(UTC).replace(tzinfo=None)
    common = {"name": "x", "purpose": "fine-tune", "status": "queued", "created_at": moment, "updated_at": moment}
    rows = [
        {**common, "options": {}, "parts": [], "report": {}, "deleted": False, **values, "id": name} for name in ids
    ]
    with database.begin() as connection:
        connection.execute(insert(files), rows)


def expire(database: Engine, row_id: str) -> None:
    """Let a lease run out, without waiting for it."""
    with database.begin() as connection:
        connection.execute(update(files).where(files.c.id == row_id).values(lease=now() - 1))


def status_of(database: Engine, row_id: str) -> str | None:
    with database.connect() as connection:
        return connection.scalar(select(files.c.status).where(files.c.id == row_id))


def test_rows_are_taken_in_their_order_each_once(database: Engine, queue: Queue) -> None:
    put(database, "a", "b")
    taken = [queue.claim("one"), queue.claim("two"), queue.claim("one")]
    assert [row and row.id for row in taken] == ["a", "b", None]
    assert taken[0] is not None and (taken[0].status, taken[0].attempt, taken[0].worker) == ("processing", 1, "one")


@pytest.mark.parametrize("values", [{"deleted": True}, {"status": "validated"}])
def test_what_is_not_waiting_is_left_alone(database: Engine, queue: Queue, values: dict[str, Any]) -> None:
    put(database, "a", **values)
    assert queue.claim("one") is None


def test_a_lease_that_ran_out_goes_to_another_and_its_holder_can_write_no_more(database: Engine, queue: Queue) -> None:
    put(database, "a")
    first = queue.claim("one")
    assert first is not None and queue.renew("a", first.attempt)
    expire(database, "a")
    second = queue.claim("two")
    assert second is not None and second.attempt == 2
    assert not queue.renew("a", first.attempt)
    with database.begin() as connection:
        assert not queue.write(connection, "a", first.attempt, name="stale")
        assert not queue.settle(connection, "a", first.attempt, status="failed")
    queue.release("a", first.attempt)
    assert status_of(database, "a") == "processing" and queue.renew("a", second.attempt)
    with database.begin() as connection:
        assert queue.settle(connection, "a", second.attempt, status="validated")
    assert status_of(database, "a") == "validated" and queue.claim("one") is None


def test_a_row_handed_back_is_free_at_once(database: Engine, queue: Queue) -> None:
    put(database, "a")
    first = queue.claim("one")
    assert first is not None
    queue.release("a", first.attempt)
    assert status_of(database, "a") == "queued"
    again = queue.claim("two")
    assert again is not None and again.attempt == 2


def test_who_is_alone_under_a_name_takes_up_what_that_name_held(database: Engine, queue: Queue) -> None:
    put(database, "a")
    queue.claim("host/cpu", alone=True)
    assert queue.claim("other/cpu", alone=True) is None
    again = queue.claim("host/cpu", alone=True)
    assert again is not None and again.attempt == 2


def test_a_change_of_status_from_outside_takes_the_row_away(database: Engine, queue: Queue) -> None:
    put(database, "a")
    held = queue.claim("one")
    assert held is not None
    with database.begin() as connection:
        connection.execute(update(files).where(files.c.id == "a").values(status="cancelled"))
    assert not queue.renew("a", held.attempt)
    queue.release("a", held.attempt)
    assert status_of(database, "a") == "cancelled"


def test_a_kept_row_outlives_its_lease(database: Engine) -> None:
    put(database, "a")
    queue = Queue(database, files, "queued", "processing", 0.6)
    held = queue.claim("one")
    assert held is not None
    with queue.kept("a", held.attempt):
        for _ in range(20):
            assert queue.claim("two") is None
            threading.Event().wait(0.1)


def test_many_workers_never_take_the_same_row(database_url: str, database: Engine) -> None:
    names = [f"row-{index}" for index in range(40)]
    put(database, *names)
    taken: Counter[str] = Counter()

    def work(worker: str) -> None:
        own = open_database(database_url)
        queue = Queue(own, files, "queued", "processing", LEASE)
        while row := queue.claim(worker):
            taken[row.id] += 1
            with own.begin() as connection:
                queue.settle(connection, row.id, row.attempt, status="validated")
        own.dispose()

    threads = [threading.Thread(target=work, args=[f"w{index}"]) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == Counter(names)


def test_a_database_of_an_earlier_version_gets_the_columns_it_lacks(tmp_path: Path, database_url: str) -> None:
    engine = open_database(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE models DROP COLUMN job_id")
        connection.exec_driver_sql("INSERT INTO models (id, state, task, labels, max_length, base_model, created_at) "
                                   "VALUES ('m', 'ready', 'classify', 2, 8, 'b', '2026-01-01 00:00:00')")  # fmt: skip
    with open_database(database_url).connect() as connection:
        assert connection.exec_driver_sql("SELECT job_id, id FROM models").all() == [(None, "m")]
