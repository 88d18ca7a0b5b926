"""Files and folders that appear whole or not at all, whenever the process is killed."""

import os
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that readers see the old content or the new, whole."""
    write_lines(path, [text])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file of any size, line ends as given, so that readers see the old content or the new, whole."""
    with staged(path) as place, place.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)


@contextmanager
def staged(path: Path, writer: str = "") -> Generator[Path, None, None]:
    """Give a place to write a file at; written without an error, it takes `path` once its bytes are on the disk.

    Several may write the same file at once if each names itself by another `writer`; the last one's stays.
    """
    place = path.with_name(f".{path.name}{writer and f'.{writer}'}.part")
    try:
        yield place
        with place.open("rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    place.rename(path)


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder and put it in the place of `target` once its bytes have reached the disk.

    One writer at a time: what an earlier one left behind half-written is cleared away.
    """
    staged, old = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.old")
    for left in (staged, old):
        shutil.rmtree(left, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        write(staged)
        for path in staged.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)  # a disk that is full is not to stay so
        raise
    if target.exists():
        target.rename(old)
    staged.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that readers see it whole or not at all."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    shutil.rmtree(old)
