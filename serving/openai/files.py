"""POST and GET /files, GET and DELETE /files/{id}, GET /files/{id}/content (OpenAI API reference, Files)."""

import base64
import re
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Literal, get_args

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response, StreamingResponse

from serving.database import files as table
from serving.errors import RequestError
from serving.files import File, Files, Upload
from serving.openai.first_line import check_first_line
from serving.openai.ids import last_seen, meant, shown
from serving.openai.lists import PageQuery, cursor, page
from serving.openai.wire import PREFIX, answer, invalid_type, invalid_value, missing
from serving.resolve import files_of
from serving.schema import Binary, Reads
from serving.uploads import form_of, store

TRAINING = "fine-tune"
"""The purpose of data to train with."""
RESULTS = "fine-tune-results"
Purpose = Literal["fine-tune", "assistants", "batch", "vision", "user_data", "evals"]
"""What a client may upload a file for; only the first has a use here."""
PURPOSES: tuple[str, ...] = get_args(Purpose)
MOST_FILES = 10_000
"""Files of one page."""
_LONGEST_NAME = 1000
_LIFETIME = (3600, 2_592_000)
_STATUS = {"queued": "uploaded", "processing": "uploaded", "validated": "processed", "failed": "error"}
_BLOCK = 1 << 20
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in ("application/octet-stream", "text/csv", "text/plain")}}
}
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)

router = APIRouter(prefix=PREFIX)


class FileForm(BaseModel):
    """What is uploaded."""

    file: Binary
    purpose: Purpose
    anchor: Literal["created_at"] | None = Field(None, alias="expires_after[anchor]")
    seconds: int | None = Field(None, alias="expires_after[seconds]", ge=_LIFETIME[0], le=_LIFETIME[1])


class FilesQuery(PageQuery):
    """Which files are wanted."""

    order: Literal["asc", "desc"]
    purpose: Purpose | Literal["fine-tune-results"]


@router.post("/files")
async def create_file(request: Annotated[Request, Reads(form=FileForm)]) -> Response:
    """Store a file; what a job needs beyond its first line is for the job to check."""
    async with form_of(request) as form:
        sent, purpose = _file_of(form), _purpose_of(form)
        lifetime, name = _lifetime_of(form), sent.filename or "upload"
        files = files_of(request)

        def add() -> File:
            if purpose == TRAINING:
                check_first_line(sent.file)
            return files.add([Upload(name, sent.file)], name=name, purpose=purpose, lifetime=lifetime)

        return answer(describe(await store(request, add)))


@router.get("/files")
def list_files(request: Annotated[Request, Reads(query=FilesQuery)]) -> Response:
    """List the files, the newest first unless asked otherwise."""
    at = cursor(request, MOST_FILES, MOST_FILES)
    order, purpose = request.query_params.get("order") or "desc", request.query_params.get("purpose")
    if order not in ("asc", "desc"):
        raise invalid_value("order", "expected asc or desc")
    if purpose and purpose not in (*PURPOSES, RESULTS):
        raise invalid_value("purpose", f"expected one of {', '.join((*PURPOSES, RESULTS))}")
    where = [table.c.purpose == purpose] if purpose else []
    after = last_seen("file-", at.after)
    found, more = files_of(request).list(*where, limit=at.limit, after=after, newest_first=order == "desc")
    return answer(page([describe(file) for file in found], has_more=more))


@router.get("/files/{file_id}")
def get_file(request: Request, file_id: str) -> Response:
    """Describe one file."""
    return answer(describe(_get(request, file_id)))


@router.get("/files/{file_id}/content", response_class=Response, responses=_CONTENT)
def get_content(request: Request, file_id: str) -> Response:
    """Give a file's bytes as they were sent; a table of results in base64, if the server is set so."""
    file = _get(request, file_id)
    try:
        content = files_of(request).path(file.id).open("rb")
    except FileNotFoundError:  # it was deleted this moment
        raise _unknown(file_id) from None
    if file.purpose != RESULTS:
        headers = {"content-type": "application/octet-stream", "content-length": str(file.parts[0].bytes)}
        return StreamingResponse(_blocks(content), headers=headers)
    with content:
        table_of_steps = content.read()
    if request.app.state.settings.result_encoding == "base64":
        return Response(base64.b64encode(table_of_steps), headers={"content-type": "text/plain"})
    return Response(table_of_steps, headers={"content-type": "text/csv"})


@router.delete("/files/{file_id}")
def delete_file(request: Request, file_id: str) -> Response:
    """Remove a file; jobs that were given it keep their own copy."""
    own_id = meant("file-", file_id)
    if own_id is None or not files_of(request).remove(own_id):
        raise _unknown(file_id)
    return answer({"id": file_id, "object": "file", "deleted": True})


def find_file(files: Files, public_id: str) -> File | None:
    """The file of an id in OpenAI's form."""
    own_id = meant("file-", public_id)
    return files.find(own_id) if own_id else None


def describe(file: File) -> dict[str, Any]:
    """A file as the files API shows it: its first part, the one that jobs train on."""
    return {
        "id": shown("file-", file.id),
        "object": "file",
        "bytes": file.parts[0].bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": int(file.expires_at.timestamp()) if file.expires_at else None,
        "filename": file.parts[0].name,
        "purpose": file.purpose,
        "status": _STATUS[file.status],
        "status_details": file.report.get("error") or None,
    }


def _get(request: Request, public_id: str) -> File:
    if file := find_file(files_of(request), public_id):
        return file
    raise _unknown(public_id)


def _unknown(public_id: str) -> RequestError:
    return RequestError(404, f"No such File object: {public_id[:200]}", param="id")


def _file_of(form: FormData) -> UploadFile:
    sent = form.get("file")
    if sent is None:
        raise missing("file")
    if not isinstance(sent, UploadFile):
        raise invalid_type("file", "expected a file: a part of the form that has a filename")
    name = sent.filename or ""
    if "\0" in name or len(name) > _LONGEST_NAME:
        raise invalid_value("file", f"its name may have {_LONGEST_NAME} characters, none of them NUL")
    return sent


def _purpose_of(form: FormData) -> str:
    purpose = form.get("purpose")
    if purpose is None:
        raise missing("purpose")
    if purpose not in PURPOSES:
        raise invalid_value("purpose", f"expected one of {', '.join(PURPOSES)}")
    return str(purpose)


def _lifetime_of(form: FormData) -> int | None:
    """Seconds until the file expires, None if it is to stay."""
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor is None or seconds is None:
        raise missing("expires_after.anchor" if anchor is None else "expires_after.seconds")
    if anchor != "created_at":
        raise invalid_value("expires_after.anchor", "expected created_at")
    if not isinstance(seconds, str) or not _NUMBER.fullmatch(seconds):
        raise invalid_type("expires_after.seconds", "expected an integer")
    least, most = _LIFETIME
    if not least <= int(seconds) <= most:
        raise invalid_value("expires_after.seconds", f"expected {least} to {most}")
    return int(seconds)


def _blocks(content: BinaryIO) -> Iterator[bytes]:
    with content:
        while block := content.read(_BLOCK):
            yield block
