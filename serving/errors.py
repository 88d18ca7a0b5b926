"""The one error a request can end in, before a dialect puts it into its own words on the wire."""

from collections.abc import Mapping
from typing import Literal

from training.errors import EncoreError

Reason = Literal["no_key", "wrong_key", "unknown_path", "wrong_method", "too_large", "busy"]
"""Why a request was turned away before, or whatever, it asked: each dialect has words of its own for these."""


class RequestError(EncoreError):
    """A request that cannot be answered as asked.

    Raised anywhere below a route, rendered once by the dialect that owns the path. 409 and 501 are not used, and
    5xx never stands for bad input: the hosted APIs' SDKs repeat such requests.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
        reason: Reason | None = None,
    ) -> None:
        """Answer `status` with `message`, and with further `headers`.

        Args:
            status: of HTTP.
            message: for whoever wrote the request.
            headers: further ones of the answer.
            param: the field at fault, for dialects that name it.
            code: the mistake's name, for dialects that have names for them.
            reason: given where a dialect is to choose the words itself.
        """
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})
        self.param, self.code, self.reason = param, code, reason
