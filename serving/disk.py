"""Bytes on disk: who may read them, further names for files that never change, and waiting until they are there."""

import errno
import os
import shutil
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What an `OSError` has as number when there is no room left."""


def make_private(folder: Path) -> None:
    """Create a folder, and those above it, that nobody but their owner can look into, whatever the umask; what is there
    stays as it is.

    Raises:
        OSError: it cannot be created.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(0o700, exist_ok=True)


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """A further name for a file that is never changed in place; a copy where the file system has no such thing.

    Raises:
        OSError: there is no such file, or the disk is full.
    """
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def sync(path: Path) -> None:
    """Wait until a file or folder has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
