"""Files on their way in: a form read to the disk, then stored while the request is kept alive."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from serving.disk import FULL
from serving.errors import RequestError
from serving.gate import POSTPONE

_Result = TypeVar("_Result")

_MOST_FILES = 10
"""Parts with a file, of one form; hosted APIs take two at most."""
_LONGEST_FIELD = 8192
"""Bytes of a part without a file; there may be a thousand of those, and they are held in memory."""
_CHARSETS = (b"utf-8", b"utf8")
"""Read by others of Python's codecs names could hold lone surrogates, which cannot be written again."""
_BEAT_SECONDS = 1.0


@asynccontextmanager
async def form_of(request: Request) -> AsyncGenerator[FormData]:
    """Read a form; what is large lies on the disk until the context ends.

    Raises:
        RequestError: 400, it cannot be read; 507, the disk is full.
    """
    _, options = parse_options_header(request.headers.get("content-type"))
    if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        raise RequestError(400, "invalid request: the form's charset must be UTF-8")
    try:
        with full_disk_told():
            form = await request.form(max_files=_MOST_FILES, max_part_size=_LONGEST_FIELD)
    except HTTPException as error:
        raise RequestError(400, f"invalid request: the form cannot be read: {error.detail}") from None
    try:
        yield form
    finally:
        await form.close()


async def store(request: Request, work: Callable[[], _Result]) -> _Result:
    """Do what writes to the disk in a thread. The request's time-out does not run meanwhile: it would leave the client
    without an answer about something that comes to be all the same.

    Raises:
        RequestError: 507, the disk is full; or what `work` raises.
    """
    task = asyncio.create_task(asyncio.to_thread(work))
    with full_disk_told():
        while not (await asyncio.wait({task}, timeout=_BEAT_SECONDS))[0]:
            request.scope[POSTPONE]()
        return task.result()


@contextmanager
def full_disk_told() -> Generator[None]:
    """Tell the client of a full disk. To repeat the request would not help, so the SDKs are told not to.

    Raises:
        RequestError: 507.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        message = "the server's disk is full; nothing was stored: make room, then try again"
        raise RequestError(507, message, {"x-should-retry": "false"}) from None
