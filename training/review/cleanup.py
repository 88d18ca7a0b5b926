"""Repairs of texts: what is decided for a whole file, done to one text after another.

Whatever is repaired is repaired until nothing is left to repair, so that a reviewed file needs no second review.
"""

import html
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from training.text import TextRules, clean_text, flatten_chat

MOJIBAKE, MARKUP, TAGS = 1, 2, 4
"""What a text may be found to hold; bits."""
SEPARATOR = "\n\n###\n\n"
"""What prompts are given to end in, as OpenAI's guide had it."""

Source = str | list[dict[str, object]]
"""A text, or the chat messages before the answer."""

# Windows-1252's own characters as the bytes they stand for; Latin-1 has the rest.
_BYTES = {ord(char): byte for byte in range(128, 160) if (char := bytes([byte]).decode("cp1252", "ignore"))}
# How UTF-8 read as Windows-1252 begins: accented letters, symbols, quotes and dashes, emoji, full-width forms.
_MOJIBAKE = re.compile("[ÂÃâðï][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SUSPECT = re.compile("[&\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9fÂÃâðï]")
_TAG = re.compile(
    r"</?(?:a|abbr|article|b|blockquote|body|br|button|center|code|dd|div|dl|dt|em|font|footer|form|h[1-6]|head|header|"
    r"hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|q|s|script|section|select|small|span|"
    r"strike|strong|style|sub|sup|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|u|ul|video)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]")
_NOT_LETTERS = re.compile(r"[\W\d_]+")


@dataclass(frozen=True)
class TextPlan:
    """What is done to the texts of all files."""

    mojibake: bool = True
    markup: bool = True
    tags: bool = False
    lower: bool = False
    prefix: str = ""
    separator: str | None = None
    """Common ending beyond the well-known ones; removed where texts are compared, as in training."""
    ignore_system: bool = True

    @cached_property
    def rules(self) -> TextRules:
        """The rules by which training will clean the texts."""
        return TextRules(separator=self.separator, ignore_system=self.ignore_system)

    def mend(self, source: Source) -> tuple[Source, int]:
        """Repair a text, or the content of each message; gives what was found to repair, too."""
        if isinstance(source, str):
            text, found = self._mend(source)
            return text.removeprefix(self.prefix), found
        messages, found, first = list[dict[str, object]](), 0, True
        for message in source:
            mended, seen = self.mend_message(message, self.prefix if first and message.get("role") == "user" else "")
            first = first and message.get("role") != "user"
            messages.append(mended)
            found |= seen
        return messages, found

    def mend_message(self, message: dict[str, object], prefix: str = "") -> tuple[dict[str, object], int]:
        """Repair the content of a chat message; one that needs none stays as it is, in parts or not."""
        content = content_of(message)
        text, found = self._mend(content)
        text = text.removeprefix(prefix)
        return (message if text == content else message | {"content": text}), found

    def flatten(self, source: Source) -> str:
        """The text of a repaired source, with the separator it may end in."""
        return source if isinstance(source, str) else flatten_chat(source, self.rules)

    def clean(self, text: str) -> str:
        """The text as the model sees it."""
        return clean_text(text, self.rules)

    def _mend(self, text: str) -> tuple[str, int]:
        text, found = repair(text, mojibake=self.mojibake, markup=self.markup) if _SUSPECT.search(text) else (text, 0)
        if "<" in text and _TAG.search(text):
            found |= TAGS
            text = _TAG.sub(" ", text) if self.tags else text
        return (text.lower() if self.lower else text), found


def repair(text: str, *, mojibake: bool = True, markup: bool = False) -> tuple[str, int]:
    """Undo wrong decoding, and unescape entities and drop control characters, until neither is left.

    Every step makes the text shorter, hence this ends. Gives what was found (bits), wanted or not.
    """
    found = 0
    while True:
        before = text
        if _MOJIBAKE.search(text) and (decoded := _decoded(text)) is not None:
            found |= MOJIBAKE
            text = decoded if mojibake else text
        if _ENTITY.search(text) and (plain := _ENTITY.sub(_unescape, text)) != text:
            found |= MARKUP
            text = plain if markup else text
        if _CONTROL.search(text):
            found |= MARKUP
            text = _CONTROL.sub("", text) if markup else text
        if text == before:
            return text, found


def _unescape(entity: re.Match[str]) -> str:
    """The character of an entity; a NUL and the like are left as they are."""
    char = html.unescape(entity[0])
    return char if len(char) < len(entity[0]) and "\ufffd" not in char else entity[0]


def _decoded(text: str) -> str | None:
    """A text that was UTF-8 and read as Windows-1252, read as UTF-8; None if the whole of it cannot be."""
    try:
        return text.translate(_BYTES).encode("latin-1").decode("utf-8")
    except UnicodeError:
        return None


def content_of(message: Mapping[str, Any]) -> str:
    """The text of a message that has passed `flatten_chat`."""
    content: object = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(cast(str, part["text"]) for part in cast(list[dict[str, object]], content))


def has_content(text: str) -> bool:
    """Whether there is more than white space and punctuation: a letter, a digit, or a symbol such as an emoji."""
    if _WORD.search(text):
        return True
    return any(ord(char) > 127 and unicodedata.category(char)[0] in "SMN" for char in text)


def same_key(text: str) -> int:
    """What is equal for texts that differ in white space and in how accents are encoded, at most."""
    text = " ".join(text.split())
    return hash(text if text.isascii() else unicodedata.normalize("NFC", text))


def near_key(text: str) -> int:
    """What is also equal for texts that differ in case, digits and punctuation."""
    letters = _NOT_LETTERS.sub(" ", unicodedata.normalize("NFC", text).casefold()).strip()
    return hash(letters) if letters else same_key(text)


def ending_of(text: str) -> str:
    """What follows the last letter or digit, within the last 200 characters."""
    end = start = len(text)
    while start and end - start < 200 and not text[start - 1].isalnum():
        start -= 1
    return text[start:]


def shared_start(one: str, other: str) -> str:
    """What two texts begin with alike."""
    if other.startswith(one):
        return one
    return one[: next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))]
