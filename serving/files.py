"""Stored files: what clients upload to train with, and what jobs leave for them to download.

A file has one part, or two where training and evaluation rows came together. Its bytes lie in
`<home>/files/<id>/<number of the part>`: the name it was given is never part of a path. The folder is complete before
the row appears, and the row goes before the folder.
"""

import os
import shutil
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal

from sqlalchemy import ColumnElement, Engine, and_, insert, or_, select, update

from serving.database import files, utc_now, zoned
from serving.disk import make_private
from serving.pages import page

FileStatus = Literal["queued", "processing", "validated", "failed"]
DatasetKind = Literal["single-label", "multi-label", "rerank"]

DATASET_KINDS: Mapping[str, DatasetKind] = {
    "single-label-classification-finetune-input": "single-label",
    "multi-label-classification-finetune-input": "multi-label",
    "reranker-finetune-input": "rerank",
}
"""Cohere's dataset types that can be trained on (Cohere documentation, Datasets)."""
EVAL_FRACTION = 0.2
"""Share of a dataset of one part that is split off to evaluate on (Cohere documentation, preparing the data)."""

_ORPHAN_SECONDS = 3600
"""An upload may take so long between its folder and its row."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a file."""

    name: str
    """As the client called it."""
    bytes: int
    rows: int | None = None
    """Once it has been validated."""


@dataclass(frozen=True, slots=True)
class File:
    """A stored file."""

    id: str
    name: str
    purpose: str
    """One of OpenAI's purposes; those of data to train with, whoever uploaded it, have `fine-tune`."""
    dataset_type: str | None
    """One of Cohere's dataset types, for what was uploaded as one."""
    status: FileStatus
    created_at: datetime
    updated_at: datetime
    parts: tuple[Part, ...]
    expires_at: datetime | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """How its owner wants it read."""
    report: dict[str, Any] = field(default_factory=dict[str, Any])
    """What validation found: `error`, `warnings`, `metrics`."""

    @property
    def bytes(self) -> int:
        """Size of all parts together."""
        return sum(part.bytes for part in self.parts)


@dataclass(frozen=True, slots=True)
class Upload:
    """One part on its way in."""

    name: str
    content: BinaryIO


class Files:
    """Adds, finds and removes files. Safe to share by threads and processes."""

    def __init__(self, home: Path, database: Engine) -> None:
        """Use `home` (created if missing) and an open database."""
        self._database, self._folders, self._staging = database, home / "files", home / "uploads"
        for folder in (self._folders, self._staging):
            make_private(folder)

    def add(
        self,
        uploads: Sequence[Upload],
        *,
        name: str,
        purpose: str,
        file_id: str | None = None,
        dataset_type: str | None = None,
        lifetime: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> File:
        """Store a file.

        Args:
            uploads: its parts, read from where they stand.
            name: what its owner calls it.
            purpose: see `File.purpose`.
            file_id: a uuid; by default a new one. One that is stored already stays as it is.
            dataset_type: see `File.dataset_type`; such a file waits to be validated.
            lifetime: seconds until it expires.
            options: see `File.options`.

        Raises:
            OSError: the disk is full, or cannot be written to; nothing is left behind.
        """
        file_id = file_id or str(uuid.uuid4())
        if known := self.find(file_id):
            return known
        moment = datetime.now(UTC)
        parts = self._place(file_id, uploads)
        added = File(
            id=file_id,
            name=name,
            purpose=purpose,
            dataset_type=dataset_type,
            status="queued" if dataset_type else "validated",
            created_at=moment,
            updated_at=moment,
            parts=parts,
            expires_at=moment + timedelta(seconds=lifetime) if lifetime else None,
            options=options or {},
        )
        with self._database.begin() as connection:
            connection.execute(insert(files).values(_values(added) | {"deleted": False}))
        return added

    def path(self, file_id: str, part: int = 0) -> Path:
        """Where a part's bytes lie."""
        return self._folders / file_id / str(part)

    def prepared(self, file_id: str, part: int = 0) -> Path:
        """Where validation leaves a part's rows, ready for training."""
        return self._folders / file_id / f"{part}.jsonl"

    def find(self, file_id: str) -> File | None:
        """The file of an id, if it is there and has not expired."""
        with self._database.connect() as connection:
            row = connection.execute(select(files).where(files.c.id == file_id, _alive())).first()
        return None if row is None else file_of(row)

    def list(
        self,
        *where: ColumnElement[bool],
        limit: int,
        after: str | None = None,
        newest_first: bool = True,
        offset: int = 0,
    ) -> tuple[list[File], bool]:
        """Some files, and whether there are more; see `serving.pages`."""
        rows, more = page(
            self._database,
            files,
            [_alive(), *where],
            limit=limit,
            after=after,
            newest_first=newest_first,
            offset=offset,
        )
        return [file_of(row) for row in rows], more

    def usage(self) -> int:
        """Bytes of all files together."""
        with self._database.connect() as connection:
            return sum(file_of(row).bytes for row in connection.execute(select(files).where(_alive())))

    def remove(self, file_id: str) -> bool:
        """Remove a file; jobs that use it keep their own copy. False if there is none."""
        change = update(files).where(files.c.id == file_id, _alive()).values(deleted=True)
        with self._database.begin() as connection:
            removed = connection.execute(change).rowcount == 1
        if removed:
            shutil.rmtree(self._folders / file_id, ignore_errors=True)
        return removed

    def sweep(self) -> None:
        """Remove the bytes of what has expired, and of what a crash left without a row."""
        over = and_(files.c.expires_at.is_not(None), files.c.expires_at < utc_now())
        with self._database.begin() as connection:
            connection.execute(update(files).where(files.c.deleted.is_(False), over).values(deleted=True))
            kept = set(connection.scalars(select(files.c.id).where(files.c.deleted.is_(False))))
        for folder in (*_old(self._folders, kept), *_old(self._staging, ())):
            shutil.rmtree(folder, ignore_errors=True)

    def _place(self, file_id: str, uploads: Sequence[Upload]) -> tuple[Part, ...]:
        staged = self._staging / f"{file_id}.upload"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        try:
            parts = tuple(
                Part(upload.name, _store(upload.content, staged / str(index))) for index, upload in enumerate(uploads)
            )
            shutil.rmtree(self._folders / file_id, ignore_errors=True)  # of an addition that was cut short
            staged.rename(self._folders / file_id)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        return parts


def file_of(row: Any) -> File:
    """A row of the table as a file."""
    return File(
        id=row.id,
        name=row.name,
        purpose=row.purpose,
        dataset_type=row.dataset_type,
        status=row.status,
        created_at=zoned(row.created_at),
        updated_at=zoned(row.updated_at),
        parts=tuple(Part(**part) for part in row.parts),
        expires_at=row.expires_at and zoned(row.expires_at),
        options=row.options,
        report=row.report,
    )


def counted(parts: Sequence[Part], rows: Sequence[int]) -> list[dict[str, Any]]:
    """Parts with their numbers of rows, as the table has them."""
    return [_part(replace(part, rows=count)) for part, count in zip(parts, rows, strict=True)]


def _part(part: Part) -> dict[str, Any]:
    return {"name": part.name, "bytes": part.bytes, "rows": part.rows}


def _values(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "name": file.name,
        "purpose": file.purpose,
        "dataset_type": file.dataset_type,
        "status": file.status,
        "created_at": file.created_at.replace(tzinfo=None),
        "updated_at": file.updated_at.replace(tzinfo=None),
        "expires_at": file.expires_at and file.expires_at.replace(tzinfo=None),
        "options": file.options,
        "parts": [_part(part) for part in file.parts],
        "report": file.report,
    }


def _alive() -> ColumnElement[bool]:
    return and_(files.c.deleted.is_(False), or_(files.c.expires_at.is_(None), files.c.expires_at > utc_now()))


def _old(folder: Path, kept: Collection[str]) -> list[Path]:
    limit = time.time() - _ORPHAN_SECONDS
    return [path for path in folder.iterdir() if path.name not in kept and path.stat().st_mtime < limit]


def _store(content: BinaryIO, path: Path) -> int:
    """Copy to the disk and wait until it is there; gives the number of bytes."""
    with path.open("wb") as file:
        shutil.copyfileobj(content, file, _BLOCK)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()
