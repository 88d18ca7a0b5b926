"""The one error a request can end in, before a dialect puts it into its own words on the wire."""

from collections.abc import Mapping

from training.errors import EncoreError


class RequestError(EncoreError):
    """A request that cannot be answered as asked.

    Raised anywhere below a route, rendered once by the dialect that owns the path. 409 and 501 are not used, and
    5xx never stands for bad input: the hosted APIs' SDKs repeat such requests.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer `status` with `message`, and with further `headers`."""
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})
