"""What holds for every test."""

import os
from collections import Counter

import pytest

# One thread for each process: tests run side by side, and many of them start processes that compute.
# Before torch is imported, which reads it once; and inherited by what the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that no process is left alone with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: slow[item.path], reverse=True)
