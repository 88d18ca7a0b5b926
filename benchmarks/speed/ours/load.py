"""Sends requests to a server from many clients at once, each one after the other, at little cost of its own.

Sockets and a parser in C, and bodies made beforehand: the machine's time is for the server that is measured.
"""

import asyncio
import itertools
import time
from typing import Any
from urllib.parse import urlsplit

import httptools
import uvloop

from benchmarks.speed.talk import answer

_GRACE = 300.0
"""Seconds in which a request that was sent must be answered."""


class Client(asyncio.Protocol):
    """One connection, on which the next request follows each answer until the time is over."""

    def __init__(self, requests: "itertools.cycle[bytes]", end: float, times: list[float]) -> None:
        """Take from `requests` until `end`; note how long each took in `times`."""
        self.requests, self.end, self.times = requests, end, times
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """The next request."""
        self.parser = httptools.HttpResponseParser(self)
        self.sent = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """A whole answer."""
        if (status := self.parser.get_status_code()) != 200:
            self.done.set_exception(RuntimeError(f"the server answered {status}"))
            self.transport.close()
            return
        now = time.perf_counter()
        self.times.append(now - self.sent)
        if now < self.end:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, or an accident."""
        if not self.done.done():
            early = exc or (None if time.perf_counter() >= self.end else ConnectionError("the server hung up"))
            self.done.set_exception(early) if early else self.done.set_result(None)


async def _run(address: Any, requests: list[bytes], clients: int, seconds: float) -> tuple[list[float], float]:
    loop, times = asyncio.get_running_loop(), list[float]()
    began, shared = time.perf_counter(), itertools.cycle(requests)
    made = [
        (await loop.create_connection(lambda: Client(shared, began + seconds, times), address.hostname, address.port))[
            1
        ]
        for _ in range(clients)
    ]
    async with asyncio.timeout(seconds + _GRACE):
        await asyncio.gather(*(client.done for client in made))
    return times, time.perf_counter() - began


def load(url: str, bodies: list[str], clients: int, seconds: float) -> dict[str, Any]:
    """Ask for `seconds`, wait for the last answers: seconds of each request, of all, and of this process's CPU."""
    address, before = urlsplit(url), time.process_time()
    requests = [
        f"POST {address.path} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body.encode())}\r\n\r\n{body}".encode()
        for body in bodies
    ]
    times, elapsed = uvloop.run(_run(address, requests, clients, seconds))
    return {"times": times, "seconds": elapsed, "cpu": time.process_time() - before}


if __name__ == "__main__":
    answer({"load": load})
