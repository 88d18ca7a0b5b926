"""Everything a request passes on its way in and out, whichever dialect it speaks, in one ASGI layer.

Keys, request id, size and time limits, metrics, one log line, and a JSON body for whatever nobody else answered.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import log, metrics
from serving.auth import bearer_token, is_known
from serving.errors import RequestError
from serving.names import new_id
from serving.settings import Settings

POSTPONE = "encore.postpone"
"""Where in the scope a route finds a function to call when it has got on with a long answer."""
_REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
_FORM = 65_536
"""Bytes an upload's form may take besides the file."""
_CLIENT_LEFT = 499  # nobody receives it; for metrics and log
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_logger = logging.getLogger(__name__)


def _given_or_new(given: str) -> str:
    return given if _REQUEST_ID.fullmatch(given) else new_id()


def _nothing(_seconds: float) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a dialect decides about every answer under its paths."""

    name: str
    """What its routes stand under in the server's description."""
    render: Callable[[Scope, RequestError], Response]
    """The answer that tells an error; what the request was is in the scope."""
    error: type[BaseModel]
    """The body of such an answer."""
    name_request: Callable[[str], str] = _given_or_new
    """The client's `x-request-id` ("" without one) to the id that the request goes by."""
    headers: Callable[[float], Mapping[str, str]] = _nothing
    """Headers of every answer; takes the seconds until it began."""
    uploads: frozenset[str] = frozenset()
    """Paths to which files are posted, so that a body may be as large as a file."""


@dataclass(slots=True)
class _Exchange:
    """What is known about one request while it is answered."""

    scope: Scope
    dialect: Dialect
    headers: Headers
    deadline: asyncio.Timeout
    settings: Settings
    request_id: str
    started: float = field(default_factory=time.perf_counter)
    received: int = 0
    status: int = 0
    awaiting: bool = False
    """Whether it is the client's turn: the rest of the body is still to come."""

    @property
    def limit(self) -> int:
        upload = self.scope["method"] == "POST" and self.scope["path"] in self.dialect.uploads
        return self.settings.max_upload + _FORM if upload else self.settings.max_body

    @property
    def too_large(self) -> bool:
        return self.received > self.limit

    def postpone(self) -> None:
        """Grant another full time-out: the client has sent something, or the answer has got on."""
        if not self.status:
            self.deadline.reschedule(asyncio.get_running_loop().time() + self.settings.request_timeout)


class Gate:
    """The ASGI layer. It reads `app.state.settings` of the application it is put in front of."""

    def __init__(self, app: ASGIApp, dialect_of: Callable[[str], Dialect]) -> None:
        """Stand before `app`; `dialect_of` gives the dialect that owns a path."""
        self._app, self._dialect_of = app, dialect_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, dialect = Headers(scope=scope), self._dialect_of(scope["path"])
        name = dialect.name_request(headers.get("x-request-id", ""))
        exchange = _Exchange(scope, dialect, headers, asyncio.timeout(None), scope["app"].state.settings, name)
        scope[POSTPONE] = exchange.postpone
        token = log.request_id.set(name)
        try:
            refusal = _refuse(exchange) or await self._forward(exchange, receive, send)
            if refusal and not exchange.status:
                await dialect.render(scope, refusal)(scope, receive, _noted(exchange, send))
        finally:
            _record(exchange)
            log.request_id.reset(token)

    async def _forward(self, exchange: _Exchange, receive: Receive, send: Send) -> RequestError | None:
        """Let the application answer; what is returned is still to be said to the client."""
        try:
            async with exchange.deadline:
                exchange.postpone()
                await self._app(exchange.scope, _inward(exchange, receive), _outward(exchange, send))
        except ClientDisconnect:
            exchange.status = _CLIENT_LEFT
        except Exception as error:
            if exchange.too_large:
                return _too_large(exchange.limit)
            if exchange.deadline.expired():
                return _too_slow(exchange)
            _logger.error("unexpected error", exc_info=error)
            if exchange.status:  # the server cuts the connection; told of the error it would log its text
                return None
            return RequestError(500, "internal server error")
        return _too_large(exchange.limit) if exchange.too_large else None


def _refuse(exchange: _Exchange) -> RequestError | None:
    """What can be told from the headers alone."""
    if hashes := exchange.settings.api_keys:
        token = bearer_token(exchange.headers.get("authorization"))
        if token is None:
            return RequestError(401, "no api key supplied", {"www-authenticate": "Bearer"}, reason="no_key")
        if not is_known(token, hashes):
            return RequestError(401, "invalid api token", {"www-authenticate": "Bearer"}, reason="wrong_key")
    length = exchange.headers.get("content-length", "")
    if length.isdecimal() and int(length) > exchange.limit:
        return _too_large(exchange.limit)
    return None


def _too_large(limit: int) -> RequestError:
    message = f"the request body must be at most {limit} bytes"
    return RequestError(413, message, {"connection": "close"}, reason="too_large")


def _too_slow(exchange: _Exchange) -> RequestError:
    seconds = f"{exchange.settings.request_timeout:g}"
    if exchange.awaiting:
        return RequestError(408, f"nothing more of the request came for {seconds} seconds", {"connection": "close"})
    return RequestError(504, f"the request took longer than {seconds} seconds")


def _inward(exchange: _Exchange, receive: Receive) -> Receive:
    async def counted() -> Message:
        exchange.awaiting = True
        message = await receive()
        exchange.awaiting = False
        if message["type"] == "http.request":
            exchange.received += len(message.get("body", b""))
            if exchange.too_large:
                # Whatever becomes of it inside, `_outward` lets only this status pass.
                raise _too_large(exchange.limit)
            exchange.postpone()
        return message

    return counted


def _outward(exchange: _Exchange, send: Send) -> Send:
    noted = _noted(exchange, send)

    async def limited(message: Message) -> None:
        if exchange.too_large and not exchange.status and message.get("status") != 413:
            return
        if message["type"] == "http.response.start":
            exchange.deadline.reschedule(None)  # a stream may take its time
        await noted(message)

    return limited


def _noted(exchange: _Exchange, send: Send) -> Send:
    async def noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(exchange.dialect.headers(time.perf_counter() - exchange.started))
            headers["x-request-id"] = exchange.request_id
        await send(message)

    return noted


def _record(exchange: _Exchange) -> None:
    seconds = time.perf_counter() - exchange.started
    method = exchange.scope["method"] if exchange.scope["method"] in _METHODS else "OTHER"
    route: str = getattr(exchange.scope.get("route"), "path", "unmatched")
    metrics.REQUESTS.labels(route, method, str(exchange.status)).inc()
    metrics.SECONDS.labels(route).observe(seconds)
    fields: Mapping[str, object] = {
        "method": method,
        "route": route,
        "status": exchange.status,
        "milliseconds": round(seconds * 1000, 2),
        "received_bytes": exchange.received,
    }
    _logger.info("request", extra={"fields": fields})
