"""The run folder's event stream: one JSON object a line, appended while the run goes on."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Level = Literal["info", "warn", "error"]


class Event(BaseModel):
    """One thing that happened in a run."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    level: Level = "info"
    message: str
    data: dict[str, Any] | None = None
    """Figures, for events that carry some: step, total_steps, train_loss, ..."""


def append_event(path: Path, message: str, level: Level = "info", data: dict[str, Any] | None = None) -> Event:
    """Append one event in one write, so that a reader never meets half a line from a living writer."""
    event = Event(at=datetime.now(UTC), level=level, message=message, data=data)
    line = event.model_dump_json() + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        if path.stat().st_size and not _ends_whole(path):
            line = "\n" + line  # a writer was killed in mid-line
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    return event


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Read whole events from a byte offset on.

    Yields:
        An event and the offset after it, to go on from at the next call. Half lines are left for later,
        lines broken by a crash are skipped.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        while (line := file.readline()).endswith(b"\n"):
            try:
                event = Event.model_validate(json.loads(line))
            except ValueError:
                continue
            yield event, file.tell()


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
