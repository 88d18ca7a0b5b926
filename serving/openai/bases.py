"""Base models: hosted ones, which stand for the server's default so that what names one runs unedited, and its own."""

import re

BASES = {
    "babbage-002": 1692634615,
    "davinci-002": 1692634301,
    "gpt-3.5-turbo": 1677610602,
    "gpt-4o": 1715367049,
    "gpt-4o-mini": 1721172741,
    "gpt-4.1": 1744316542,
    "gpt-4.1-mini": 1744318173,
    "gpt-4.1-nano": 1744321025,
    "ada": 1649357491,
    "babbage": 1649358449,
    "curie": 1649359874,
    "davinci": 1649359874,
}
"""The names that are listed, with the second each came into being (OpenAI API, List models)."""
FAMILIES = ("gpt-3.5-turbo", "gpt-4o", "gpt-4.1")
"""Whatever begins so is the name of a hosted base model: there are sizes and dates of each."""
_OF_A_FAMILY = re.compile(rf"(?:{'|'.join(map(re.escape, FAMILIES))})[\w.-]{{0,64}}", re.ASCII)


def find_base(name: str, own: tuple[str, ...]) -> str | None:
    """Which of its own base models, the default first, a server takes for a name; None if it is no base model's.

    Its own go by their whole name or by what follows the last slash in it.
    """
    if name in BASES or _OF_A_FAMILY.fullmatch(name):
        return own[0]
    return next((base for base in own if name in (base, last_part(base))), None)


def is_base(name: str, *own: str) -> bool:
    """Whether a name is a base model's: a hosted one's, or one of the server's own, as `find_base`."""
    return find_base(name, own) is not None


def last_part(name: str) -> str:
    """A Hub id without its owner, a folder without those above it."""
    return name.rstrip("/").rpartition("/")[2]
