"""What things are called: ids, the names an owner may give a model, the names of hosted base models."""

import random
import re
import secrets
import string
import uuid

from training.errors import ModelError

BASE_NAMES = (
    *("embed-english-v3.0", "embed-english-light-v3.0", "embed-multilingual-v3.0", "embed-english-v2.0"),
    *("english", "multilingual", "small", "medium", "large"),
)
"""Hosted base models of Cohere's classify endpoint, which stand for the server's default base."""
RERANK_NAMES = ("rerank-v3.5", "rerank-english-v3.0", "rerank-multilingual-v3.0", "rerank-english-v2.0")
"""Hosted base models of Cohere's rerank endpoint."""

_DIGITS = string.digits + string.ascii_letters
_SHORT = 22
"""Digits that hold 128 bits."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,255}")
_ID = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:-ft)?")


def new_id() -> str:
    """A uuid for something that is no secret: by the quick generator, an answer of 96 items needs 98 of them."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


def epoch_id(job_id: str, step: int) -> str:
    """The uuid of the model that a job left of the epoch that ended with a step."""
    return str(uuid.uuid5(uuid.UUID(job_id), str(step)))


def short(long: str) -> str:
    """A uuid as 24 letters and digits, the form OpenAI's ids have after their prefix; the first two only check it."""
    number = uuid.UUID(long).int
    number += number % len(_DIGITS) ** 2 * len(_DIGITS) ** _SHORT
    digits = list[str]()
    for _ in range(_SHORT + 2):
        number, rest = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[rest])
    return "".join(reversed(digits))


def long(short_form: str) -> str | None:
    """The uuid that `short` gave this form, None for any other text."""
    if len(short_form) != _SHORT + 2 or not set(short_form) <= set(_DIGITS):
        return None
    number = 0
    for digit in short_form[2:]:
        number = number * len(_DIGITS) + _DIGITS.index(digit)
    if number >= 1 << 128:
        return None
    found = str(uuid.UUID(int=number))
    return found if short(found) == short_form else None


def random_word(length: int) -> str:
    """So many random letters and digits."""
    return "".join(secrets.choice(_DIGITS) for _ in range(length))


def is_name(key: str) -> bool:
    """Whether a text has the form of a name that a model can be given."""
    return _NAME.fullmatch(key) is not None


def bare_id(key: str) -> str | None:
    """The uuid in `<uuid>` or `<uuid>-ft`, None for any other text."""
    match = _ID.fullmatch(key.lower())
    return match[1] if match else None


def check_name(name: str) -> None:
    """Refuse a name that could be mistaken for something else.

    Raises:
        ModelError: the reason, and what a name may be.
    """
    if not is_name(name):
        rule = "1 to 256 letters, digits, dots, dashes, underscores or colons, the first a letter or digit"
        raise ModelError(f"{name!r} cannot be a model's name; a name has {rule}")
    if bare_id(name) or name.lower().endswith("-ft"):
        raise ModelError(f"{name!r} cannot be a model's name: it looks like an id; choose a word of your own")
    if name in BASE_NAMES or name in RERANK_NAMES:
        raise ModelError(f"{name!r} cannot be a model's name: it is that of a hosted base model; choose another")
