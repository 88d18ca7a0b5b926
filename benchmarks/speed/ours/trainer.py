"""Trains by our command, again and again in one process, and tells how long the steps took of it."""

import contextlib
import time
from functools import wraps
from typing import Any
from unittest.mock import patch

from benchmarks.speed.talk import answer
from training import train
from training.loop import Loop

_STEPS = "_train_epoch"
"""The method of the loop that takes an epoch's steps."""


def command(flags: list[str]) -> dict[str, float]:
    """What `python -m training.train` does; the seconds of the optimiser steps, and of everything."""
    method, taken = getattr(Loop, _STEPS), list[float]()

    @wraps(method)
    def timed(*given: Any, **named: Any) -> None:
        began = time.perf_counter()
        method(*given, **named)
        taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    with patch.object(Loop, _STEPS, timed):
        status = train.main(flags)
    if status:
        raise RuntimeError(f"training ended with status {status}")
    return {"steps": sum(taken), "whole": time.perf_counter() - began}


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        answer({"train": command})
