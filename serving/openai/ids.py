"""Ids as OpenAI's clients know them: a prefix, then a uuid in its short form."""

from typing import Literal

from serving.errors import RequestError
from serving.names import long, short
from serving.openai.wire import invalid_value

Prefix = Literal["file-", "ftjob-", "ftevent-", "ftckpt_"]


def shown(prefix: Prefix, own_id: str) -> str:
    """A uuid in OpenAI's form."""
    return prefix + short(own_id)


def meant(prefix: Prefix, public_id: str) -> str | None:
    """The uuid that `shown` gave this form, None for any other text."""
    return long(public_id.removeprefix(prefix)) if public_id.startswith(prefix) else None


def last_seen(prefix: Prefix, after: str | None) -> str | None:
    """The uuid of the item after which a page is to begin, None for the beginning.

    Raises:
        RequestError: 400, it cannot be the id of such an item.
    """
    found = meant(prefix, after) if after else None
    if after and not found:
        raise never_seen(prefix)
    return found


def never_seen(prefix: Prefix) -> RequestError:
    """What is wrong is that `after` never was an item of the list."""
    return invalid_value("after", f"expected the id of an item of this list: {prefix} and 24 letters and digits")
