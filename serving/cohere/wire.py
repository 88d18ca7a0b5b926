"""Bodies as they travel: parsing, the meta object, the error shape (Cohere API reference, Errors)."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, TypeAdapter, ValidationError
from starlette.responses import Response

from serving import log
from serving.errors import RequestError
from serving.names import new_id

Parsed = TypeVar("Parsed")

OWNER = "encore"
"""Whom everything on this server belongs to."""


class CohereError(BaseModel):
    """An error: an id to ask about, and a message."""

    id: str
    message: str


_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f]")
_PAGE, _LARGEST_PAGE = 50, 1000


def _shown(name: str) -> str:
    if not name.strip():
        raise ValueError("it must not be blank")
    if _CONTROLS.search(name):
        raise ValueError("it must not hold control characters")
    return name


Name = Annotated[str, AfterValidator(_shown)]
"""What an owner calls something; need not be unique."""


def parse(adapter: TypeAdapter[Parsed], body: bytes) -> Parsed:
    """Read a request body.

    Parsing apart from validation is on purpose: orjson refuses what JSON does not allow (NaN, lone surrogates,
    bottomless nesting), so that no such text can reach an answer.

    Raises:
        RequestError: 400, the first thing wrong with it.
    """
    try:
        return adapter.validate_python(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"invalid json syntax: {error}") from None
    except ValidationError as error:
        raise RequestError(400, f"invalid request: {first_mistake(error.errors(include_url=False))}") from None


def first_mistake(errors: Sequence[Any]) -> str:
    """The first of pydantic's complaints as `field: reason`."""
    reason = str(errors[0]["msg"]).removeprefix("Value error, ")
    place = errors[0]["loc"]
    if len(place) > 1 and place[0] in ("query", "path"):  # FastAPI says where it found a parameter
        place = place[1:]
    where = ".".join(map(str, place))
    return f"{where or 'body'}: {reason[0].lower()}{reason[1:]}"


def answer(content: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer, status 200."""
    return Response(orjson.dumps(content), media_type="application/json", headers=headers)


def render(error: RequestError) -> Response:
    """An error as the SDK expects it."""
    body = CohereError(id=log.request_id.get() or new_id(), message=error.message)
    return Response(orjson.dumps(body.model_dump()), error.status, error.headers, media_type="application/json")


def timestamp(moment: datetime) -> str:
    """ISO 8601 with microseconds and a Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def size_of(page_size: int) -> int:
    """How many items a page is to have; 0 stands for the default, as it does for every number in protocol buffers."""
    return min(page_size or _PAGE, _LARGEST_PAGE)


def page(items: Mapping[str, Any], page_size: int, token: str) -> tuple[list[Any], str]:
    """A page of a list that is at hand as a whole, and the token of the next page, "" for none.

    Args:
        items: by keys that stay what they are, such as ids, in the order of the list.
        page_size: as the client gave it.
        token: of the page; "" for the first.

    Raises:
        RequestError: 400, the token is not one.
    """
    keys = list(items)
    if token and token not in items:
        raise wrong_token(token)
    rest = keys[keys.index(token) + 1 :] if token else keys
    shown = rest[: size_of(page_size)]
    return [items[key] for key in shown], shown[-1] if len(shown) < len(rest) else ""


def wrong_token(token: str) -> RequestError:
    """What is wrong is the token of a page."""
    return RequestError(400, f"invalid request: page_token {token[:80]!r} was not given out by this server")


def meta(billed: dict[str, int] | None = None, warnings: Sequence[str] = (), version: int = 1) -> dict[str, Any]:
    """The meta object of an API version."""
    content: dict[str, Any] = {"api_version": {"version": str(version)}}
    if billed:
        content["billed_units"] = billed
    if warnings:
        content["warnings"] = list(warnings)
    return content
