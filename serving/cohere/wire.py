"""Bodies as they travel: parsing, the meta object, the error shape (Cohere API reference, Errors)."""

from collections.abc import Sequence
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from serving import log
from serving.errors import RequestError
from serving.names import new_id

Parsed = TypeVar("Parsed")


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
    reason = str(errors[0]["msg"])
    place = errors[0]["loc"]
    if len(place) > 1 and place[0] in ("query", "path"):  # FastAPI says where it found a parameter
        place = place[1:]
    where = ".".join(map(str, place))
    return f"{where or 'body'}: {reason[0].lower()}{reason[1:]}"


def answer(content: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer, status 200."""
    return Response(orjson.dumps(content), media_type="application/json", headers=headers)


def render(error: RequestError) -> Response:
    """An error as the SDK expects it: an id to ask about, and a message."""
    body = orjson.dumps({"id": log.request_id.get() or new_id(), "message": error.message})
    return Response(body, error.status, error.headers, media_type="application/json")


def meta(billed: dict[str, int] | None = None, warnings: Sequence[str] = (), version: int = 1) -> dict[str, Any]:
    """The meta object of an API version."""
    content: dict[str, Any] = {"api_version": {"version": str(version)}}
    if billed:
        content["billed_units"] = billed
    if warnings:
        content["warnings"] = list(warnings)
    return content
