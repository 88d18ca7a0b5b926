"""Bodies as they travel: parsing, the error object, headers, events (OpenAI API reference, Errors and Streaming)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from serving.auth import bearer_token
from serving.errors import RequestError
from serving.gate import Dialect
from serving.names import new_id
from training.text import json_type

MOUNT = "/openai"
"""What stands before the paths that clients and error messages speak of."""
PREFIX = f"{MOUNT}/v1"
UPLOADS = frozenset((f"{PREFIX}/files",))
"""Paths to which files are posted."""

STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
"""What a route adds to its description that can answer with `stream`."""

Parsed = TypeVar("Parsed")

_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "texts_type": "a string or a list of strings",
}
_SHOWN_KEY = 8
"""A wrong key of fewer characters is not even shown in part."""


class Mistake(BaseModel):
    """What went wrong; all four keys are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error."""

    error: Mistake


class Body(BaseModel):
    """A request. Types are JSON's own, "5" is no number; fields that are not listed are ignored."""

    model_config = ConfigDict(strict=True)


def _listed(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value if value is None else [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in cast(list[Any], value)):
        return cast(list[str], value)
    raise PydanticCustomError("texts_type", "expected a string or a list of strings")


Texts = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
"""A text or several."""


def parse(adapter: TypeAdapter[Parsed], body: bytes) -> Parsed:
    """Read a request body; orjson refuses what JSON does not allow, so that no such text can reach an answer.

    Raises:
        RequestError: 400, the first thing wrong with it.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _unreadable(str(error)) from None
    if not isinstance(content, dict):
        raise _unreadable(f"expected an object, found {json_type(content)}")
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        raise _mistake(error.errors(include_url=False)[0]) from None


def missing(param: str) -> RequestError:
    """What is wrong is that the field is not there, or null."""
    message = f"Missing required parameter: '{param}'."
    return RequestError(400, message, param=param, code="missing_required_parameter")


def invalid_type(param: str, expected: str) -> RequestError:
    """What is wrong is the JSON type."""
    return RequestError(400, f"Invalid type for '{param}': {expected}.", param=param, code="invalid_type")


def invalid_value(param: str, reason: str) -> RequestError:
    """What is wrong is the value."""
    return RequestError(400, f"Invalid value for '{param}': {reason}.", param=param, code="invalid_value")


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def stream(chunks: Iterable[Mapping[str, Any]]) -> Response:
    """Server-sent events; all in one piece, as everything is known before the first of them."""
    events = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks]
    headers = {"content-type": "text/event-stream", "cache-control": "no-cache"}
    return Response(b"".join((*events, b"data: [DONE]\n\n")), headers=headers)


def render(scope: Scope, error: RequestError) -> Response:
    """An error as the SDK expects it."""
    message, code = _worded(scope, error)
    param = "file" if code == "file_too_large" else error.param
    kind = "requests" if error.status == 429 else "server_error" if error.status >= 500 else "invalid_request_error"
    headers = error.headers | ({"x-should-retry": "false"} if error.status == 500 else {})
    mistake = Mistake(message=message, type=kind, param=param, code=code)
    return answer(OpenAIError(error=mistake).model_dump(), error.status, headers)


def _worded(scope: Scope, error: RequestError) -> tuple[str, str | None]:
    """Message and code."""
    method, path = scope["method"], scope["path"].removeprefix(MOUNT)[:200]
    match error.reason:
        case "no_key":
            way_out = "Send it in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            return f"You didn't provide an API key. {way_out}", None
        case "wrong_key":
            key = bearer_token(Headers(scope=scope).get("authorization")) or ""
            shown = f"{key[:2]}***{key[-2:]}" if len(key) >= _SHOWN_KEY else "***"
            return f"Incorrect API key provided: {shown}.", "invalid_api_key"
        case "unknown_path":
            return f"Invalid URL ({method} {path})", "unknown_url"
        case "wrong_method":
            return f"Not allowed to {method} on {path}.", "method_not_supported"
        case "too_large" if scope["path"] in UPLOADS:
            return error.message, "file_too_large"
        case "busy":
            return error.message, "rate_limit_exceeded"
        case _:
            return error.message, error.code


def _unreadable(reason: str) -> RequestError:
    return RequestError(400, f"We could not parse the JSON body of your request. (HINT: {reason})")


def _mistake(error: ErrorDetails) -> RequestError:
    """One of pydantic's complaints in OpenAI's words; null counts as absent."""
    param, kind, reason = _dotted(error["loc"]), error["type"], error["msg"].removeprefix("Value error, ")
    if kind == "missing" or error["input"] is None:
        return missing(param)
    if kind == "string_too_long":
        message = f"'{param}' may have at most {error.get('ctx', {})['max_length']} characters."
        return RequestError(400, message, param=param, code="string_above_max_length")
    if expected := _EXPECTED.get(kind):
        return invalid_type(param, f"expected {expected}")
    return invalid_value(param, reason[0].lower() + reason[1:])


def _dotted(place: Sequence[int | str]) -> str:
    """A place in the body as in `messages[0].role`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def _new_request_id(_given: str) -> str:
    return f"req_{new_id().replace('-', '')}"


def _headers(seconds: float) -> dict[str, str]:
    return {"openai-version": "2020-10-01", "openai-processing-ms": str(round(seconds * 1000))}


DIALECT = Dialect("OpenAI", render, OpenAIError, _new_request_id, _headers, UPLOADS)
