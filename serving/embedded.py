"""The worker that a server brings up itself: started, watched, started again, ended with the server."""

import asyncio
import logging
import sys
import time

from serving.settings import Settings, foreign_environment

_QUICK = 10.0
"""A worker that ends before it is so old ends for a reason that will not go away."""
_LONGEST_PAUSE = 30.0
_STOP_SECONDS = 30.0

_logger = logging.getLogger(__name__)


async def keep_worker(settings: Settings) -> None:
    """Run `python -m serving.worker` until this task is cancelled. The worker leaves when its stdin ends."""
    pause = 0.5
    while True:
        began = time.monotonic()
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "serving.worker",
            "--tethered",
            stdin=asyncio.subprocess.PIPE,
            env=foreign_environment() | settings.environment,
        )
        try:
            status = await worker.wait()
        except asyncio.CancelledError:
            await _end(worker)
            raise
        lasted = time.monotonic() - began
        pause = min(2 * pause, _LONGEST_PAUSE) if lasted < _QUICK else 0.5
        # With status 0 it was told to, as when the whole server is being stopped.
        level = logging.ERROR if status else logging.INFO
        _logger.log(level, "the worker has ended", extra={"fields": {"status": status, "pause": pause}})
        await asyncio.sleep(pause)


async def _end(worker: asyncio.subprocess.Process) -> None:
    """Let go of the worker: it hands its job back and leaves."""
    if worker.stdin:
        worker.stdin.close()
    try:
        await asyncio.wait_for(worker.wait(), _STOP_SECONDS)
    except TimeoutError:
        worker.kill()
        await worker.wait()
