"""A glance at what was uploaded to be trained on, so that a wrong file is told of at once, not by a failed job."""

import json
from codecs import BOM_UTF8
from typing import BinaryIO

from serving.errors import RequestError

_LONGEST = 1 << 20
"""Bytes of the first line that are looked at; a longer one is for the job to judge."""
_SHOWN = 20
_BLANK = b" \t\r\n"
_POINTER = "To see all that is wrong with a file, run: python -m training.review FILE"


def check_first_line(content: BinaryIO) -> None:
    """Refuse what has no line but blank ones, or begins with anything but a JSON object.

    Before it a byte order mark is tolerated. Bytes that are not UTF-8 are left for the job, which names their lines.
    The content is left at its start.

    Raises:
        RequestError: 400, in the hosted API's words.
    """
    number, line = _first_line(content)
    content.seek(0)
    if not line:
        raise _refusal("The file is empty; expected JSONL format, where every line is a JSON dictionary.")
    if not _is_object(line):
        beginning = line[:_SHOWN].decode("utf-8", "replace")
        raise _refusal(
            "Expected file to have JSONL format, where every line is a JSON dictionary. "
            f'Line {number} is not a dictionary (HINT: line starts with: "{beginning}...").'
        )


def _first_line(content: BinaryIO) -> tuple[int, bytes]:
    """The first line that is not blank, or as much of it as is looked at, and its number, counted from 1."""
    number, line = 1, b""
    head = content.read(_LONGEST).removeprefix(BOM_UTF8)
    while head and not line:
        line = head.lstrip(_BLANK)
        number += head[: len(head) - len(line)].count(b"\n")
        head = content.read(_LONGEST)
    return number, (line + head).partition(b"\n")[0].rstrip(_BLANK)


def _is_object(line: bytes) -> bool:
    if not line.startswith(b"{") or len(line) >= _LONGEST:
        return line.startswith(b"{")
    try:
        json.loads(line.decode("utf-8", "replace"))
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _refusal(reason: str) -> RequestError:
    return RequestError(400, f"{reason} {_POINTER}", param="file", code="invalid_file_format")
