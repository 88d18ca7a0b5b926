"""Importing what is large: torch, transformers, and what they bring along."""

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def lasting() -> Generator[None, None, None]:
    """Import inside of it what stays as long as the process: the garbage collector does not walk through it.

    Modules are a million objects of which no walk would free any. Without them loading torch and transformers takes a
    sixth less, and every full collection afterwards, the ones at the end of the process included, 0.4 seconds less.
    Where all was imported before, nothing is changed.
    """
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        gc.enable()
