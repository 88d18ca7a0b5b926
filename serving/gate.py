"""Everything a request passes on its way in and out, whichever dialect it speaks, in one ASGI layer.

Keys, request id, size and time limits, metrics, one log line, and a JSON body for whatever nobody else answered.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import log, metrics
from serving.auth import bearer_token, is_known
from serving.errors import RequestError
from serving.names import new_id
from serving.settings import Settings

Render = Callable[[str, RequestError], Response]
"""Path and error to the answer, in the dialect that owns the path."""

POSTPONE = "encore.postpone"
"""Where in the scope a route finds a function to call when it has got on with a long answer."""
_REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
_CLIENT_LEFT = 499  # nobody receives it; for metrics and log
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Exchange:
    """What is known about one request while it is answered."""

    scope: Scope
    headers: Headers
    deadline: asyncio.Timeout
    settings: Settings
    request_id: str
    started: float = field(default_factory=time.perf_counter)
    received: int = 0
    status: int = 0

    @property
    def too_large(self) -> bool:
        return self.received > self.settings.max_body

    def postpone(self) -> None:
        """Grant another full time-out: the client has sent something, or the answer has got on."""
        if not self.status:
            self.deadline.reschedule(asyncio.get_running_loop().time() + self.settings.request_timeout)


class Gate:
    """The ASGI layer. It reads `app.state.settings` of the application it is put in front of."""

    def __init__(self, app: ASGIApp, render: Render) -> None:
        """Stand before `app`; `render` words the answers the gate gives itself."""
        self._app, self._render = app, render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        name = given if _REQUEST_ID.fullmatch(given) else new_id()
        exchange = _Exchange(scope, headers, asyncio.timeout(None), scope["app"].state.settings, name)
        scope[POSTPONE] = exchange.postpone
        token = log.request_id.set(name)
        try:
            refusal = _refuse(exchange) or await self._forward(exchange, receive, send)
            if refusal and not exchange.status:
                await self._render(scope["path"], refusal)(scope, receive, _noted(exchange, send))
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
                return _too_large(exchange.settings.max_body)
            if exchange.deadline.expired():
                seconds = f"{exchange.settings.request_timeout:g}"
                return RequestError(504, f"the request took longer than {seconds} seconds")
            _logger.error("unexpected error", exc_info=error)
            if exchange.status:
                raise
            return RequestError(500, "internal server error")
        return _too_large(exchange.settings.max_body) if exchange.too_large else None


def _refuse(exchange: _Exchange) -> RequestError | None:
    """What can be told from the headers alone."""
    if hashes := exchange.settings.api_keys:
        token = bearer_token(exchange.headers.get("authorization"))
        if token is None:
            return RequestError(401, "no api key supplied", {"www-authenticate": "Bearer"})
        if not is_known(token, hashes):
            return RequestError(401, "invalid api token", {"www-authenticate": "Bearer"})
    length = exchange.headers.get("content-length", "")
    if length.isdecimal() and int(length) > exchange.settings.max_body:
        return _too_large(exchange.settings.max_body)
    return None


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the request body must be at most {limit} bytes", {"connection": "close"})


def _inward(exchange: _Exchange, receive: Receive) -> Receive:
    async def counted() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            exchange.received += len(message.get("body", b""))
            if exchange.too_large:
                # Whatever becomes of it inside, `_outward` lets only this status pass.
                raise _too_large(exchange.settings.max_body)
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
            MutableHeaders(scope=message)["x-request-id"] = exchange.request_id
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
