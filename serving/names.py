"""What things are called: ids, the names an owner may give a model, the names of hosted base models."""

import random
import re
import uuid

from training.errors import ModelError

BASE_NAMES = (
    *("embed-english-v3.0", "embed-english-light-v3.0", "embed-multilingual-v3.0", "embed-english-v2.0"),
    *("english", "multilingual", "small", "medium", "large"),
)
"""Hosted base models of Cohere's classify endpoint, which stand for the server's default base."""
RERANK_NAMES = ("rerank-v3.5", "rerank-english-v3.0", "rerank-multilingual-v3.0", "rerank-english-v2.0")
"""Hosted base models of Cohere's rerank endpoint."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_ID = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:-ft)?")


def new_id() -> str:
    """A uuid for something that is no secret: by the quick generator, an answer of 96 items needs 98 of them."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


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
        rule = "1 to 128 letters, digits, dots, dashes, underscores or colons, the first a letter or digit"
        raise ModelError(f"{name!r} cannot be a model's name; a name has {rule}")
    if bare_id(name) or name.lower().endswith("-ft"):
        raise ModelError(f"{name!r} cannot be a model's name: it looks like an id; choose a word of your own")
    if name in BASE_NAMES or name in RERANK_NAMES:
        raise ModelError(f"{name!r} cannot be a model's name: it is that of a hosted base model; choose another")
