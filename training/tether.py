"""Leaving when told to: a parent lets go of stdin, or someone sends SIGTERM.

A parent that trains in a subprocess keeps the write end of its stdin. However the parent ends, by SIGKILL too, the
kernel then closes the pipe, and no training goes on that nobody owns. A person's run has a terminal or /dev/null
there, whose end means nothing, so that stdin is watched only when asked for.
"""

import os
import select
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Self

STOPPED = os.EX_TEMPFAIL
"""Exit status of a run that was told to stop and that the same command goes on with."""
GRACE = 10.0
"""Seconds from being told to being gone, whatever the run is doing."""

_MESSAGE = "stopped; the same command goes on from the last saved state\n"
_ENDED = 0
"""The byte that ends the watch; signals have numbers from 1 on."""


class Stopped(Exception):
    """The run was told to stop, and has saved its state."""


class Tether:
    """Watches for the order to stop, in a thread, while it is entered.

    Nothing a run writes can be met half-written, so it may leave at any instant, and does so at once. Only where a
    moment's patience saves work, in `deferred`, it goes on until it raises `Stopped` itself, for `GRACE` at most.
    """

    def __init__(self, *, stdin: bool = False, silent: bool = False) -> None:
        """Prepare to watch for SIGTERM, and for the end of `stdin`; one process of several says that it leaves."""
        self.pulled = False
        """Whether the order has come."""
        self._stdin, self._silent = stdin, silent
        self._free = threading.Event()
        self._free.set()

    def __enter__(self) -> Self:
        """Begin to watch; only a main thread can."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # The C part of a signal's handling writes its number to this pipe at once, also while the main thread is in
        # a long call of torch's; the Python part, which would wait for that call, has nothing to do.
        self._handler = signal.signal(signal.SIGTERM, _heard)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="tether", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the watch, unless the order came: then the thread sees to it that the process ends in time."""
        signal.set_wakeup_fd(self._wakeup)
        signal.signal(signal.SIGTERM, self._handler)
        if self.pulled:
            return
        os.write(self._write, bytes([_ENDED]))
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    @contextmanager
    def deferred(self) -> Generator[None, None, None]:
        """Within, an order waits until the caller looks at `pulled`, saves, and raises `Stopped`."""
        self._free.clear()
        yield
        self._free.set()  # not after an exception: who raises one is leaving already

    def say(self) -> None:
        """Tell the user that the run has stopped, in one line on stderr."""
        if not self._silent:
            os.write(2, _MESSAGE.encode())

    def _watch(self) -> None:
        if not self._told():
            return
        self.pulled = True
        self._free.wait(GRACE)
        self.say()
        os._exit(STOPPED)

    def _told(self) -> bool:
        """Wait for the order; False when the watch ended without one."""
        watched = [self._read, 0] if self._stdin else [self._read]
        while True:
            ready = select.select(watched, [], [])[0]
            # `sys.stdin.buffer.read` would hold a lock for ever, at which the interpreter aborts when it exits.
            if 0 in ready and not os.read(0, 4096):
                return True
            if self._read in ready:
                numbers = os.read(self._read, 4096)
                if signal.SIGTERM in numbers:
                    return True
                if _ENDED in numbers:
                    return False


def _heard(_number: int, _frame: object) -> None:
    """Nothing: there must be a handler for the number to be written, and the thread does the rest."""
