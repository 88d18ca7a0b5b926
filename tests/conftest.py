"""What holds for every test."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from training.imports import lasting

# One thread for each process: tests run side by side, and many of them start processes that compute.
# Before torch is imported, which reads it once; and inherited by what the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# What is kept in the user's cache folder is for the session only; but matplotlib takes seconds to fill its own.
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))
_CACHE = "ENCORE_TESTS_CACHE"


def pytest_configure() -> None:
    """Make a cache folder, which the processes started from this one share."""
    if _CACHE not in os.environ:
        os.environ[_CACHE] = str(os.getpid())
        os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="encore-tests-")


def pytest_unconfigure() -> None:
    """Remove it at the end of the process that made it."""
    if os.environ[_CACHE] == str(os.getpid()):
        shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, None, None]:
    """Import torch and the rest once for all, see `lasting`."""
    with lasting():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that no process is left alone with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: slow[item.path], reverse=True)
