"""The errors a user can mend, in one tree.

    EncoreError
    ├── ConfigError      a setting is unknown, out of range, or clashes with another
    ├── DataError        a data file or one of its rows; says which file and line
    ├── ModelError       a base model or checkpoint that cannot be found or read
    └── TrainingError    the run itself cannot go on (loss is NaN, memory is full, folder taken)

They are raised where the mistake is found and caught once, at the edge: a command prints the message
as one line and exits with status 1, the server answers HTTP 400. Everything else is a bug and keeps
its traceback.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class EncoreError(Exception):
    """A mistake the user can mend. `str(error)` is one sentence: what was given, what was expected, the way out."""


class ConfigError(EncoreError):
    """A setting is unknown, out of range, or clashes with another."""


class DataError(EncoreError):
    """A data file, or one of its rows, cannot be used; `check` is the id under which a review counts the row."""

    def __init__(
        self, message: str, path: Path | str | None = None, line: int | None = None, check: str = "malformed"
    ) -> None:
        where = f"{path}:{line}: " if path and line else f"{path}: " if path else ""
        super().__init__(where + message)
        self.path, self.line, self.check = path, line, check


class ModelError(EncoreError):
    """A base model or a checkpoint cannot be found or read."""


class TrainingError(EncoreError):
    """A run cannot start or go on."""


@contextmanager
def located(path: Path, line: int) -> Generator[None, None, None]:
    """Add file and line to the errors of one row."""
    try:
        yield
    except EncoreError as error:
        raise DataError(str(error), path, line) from None
