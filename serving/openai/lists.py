"""Lists that are read page by page (OpenAI API reference, Pagination)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, Field

from serving.openai.wire import invalid_value

_NUMBER = re.compile(r"[0-9]{1,4000}", re.ASCII)


class PageQuery(BaseModel):
    """What `cursor` reads."""

    limit: Annotated[int, Field(ge=1)]
    after: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """Which part of a list is wanted."""

    limit: int
    after: str | None
    """Id of the last item seen, as the client gave it."""


def cursor(request: Request, default: int, most: int) -> Cursor:
    """Read `limit` and `after`; a limit above `most` is brought down to it.

    Raises:
        RequestError: 400, `limit` is not a number from 1.
    """
    given = request.query_params.get("limit")
    if given is not None and (not _NUMBER.fullmatch(given) or int(given) < 1):
        raise invalid_value("limit", f"expected a whole number from 1 to {most}")
    return Cursor(min(int(given), most) if given else default, request.query_params.get("after") or None)


def page(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """One page. `has_more` is never left out: without it the SDK asks until it gets an empty page."""
    ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {"first_id": None, "last_id": None}
    return {"object": "list", "data": list(items), **ends, "has_more": has_more}
