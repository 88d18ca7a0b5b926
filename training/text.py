"""The text rules: what becomes of a text or a label before the model sees it.

Training, evaluation and serving all call these functions with the `TextRules` that were learned from the training
file and are stored in the checkpoint, so a text is read in one way everywhere. The rules follow what users of the
hosted fine-tuning API do to their data (OpenAI guides, "Preparing your dataset" for prompt/completion pairs, and
the chat format of the fine-tuning reference).
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from training.errors import DataError, EncoreError

# As they look once trailing white space is gone, e.g. "\n\n###" for "\n\n###\n\n".
KNOWN_SEPARATORS = (" ->", "\n\n###", "\n\n===", "\n\n---", "\n\n===>", "\n\n--->", "\n\n### =>")
# What completions were told to stop at. Closing brackets and quotes are no end marks: they belong to the label.
STOP_WORDS = (" END", "\nEND", "[END]", "<END>", "[STOP]", "<STOP>", "<|endoftext|>", "<|im_end|>", "</s>")
END_MARKS = "#*=~-_|>.;@%^&"
# A shared ending is searched for in this many last characters.
_LONGEST_ENDING = 200
_SURROGATE = re.compile("[\ud800-\udfff]")
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_SYSTEM_ROLES = ("system", "developer")


class TextRules(BaseModel):
    """How texts and labels are cleaned; learned from the training file, stored as JSON in the checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    separator: str | None = None
    """Common ending of all training texts, beyond the well-known separators."""
    ignore_system: bool = False
    """System messages carry nothing (every training row had the same one, or none) and are dropped."""
    label_suffix: str = ""
    """Common ending of all completions, e.g. " END", which is not part of the label."""


class ChatError(EncoreError):
    """A list of chat messages cannot be turned into one text.

    `index` is the position of the message at fault and `field` the key in it ("role" or "content"); both are None
    when the list as a whole is at fault.
    """

    def __init__(self, reason: str, index: int | None = None, field: str | None = None) -> None:
        where = "messages" if index is None else f"messages[{index}]"
        super().__init__(f"{where}.{field} {reason}" if field else f"{where} {reason}")
        self.index, self.field = index, field


def json_type(value: object) -> str:
    """Name the type of a JSON value for a message, such as "a string" or "null"."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case _:
            return "a list"


def listed(names: Sequence[str]) -> str:
    """List at most ten names for a message on one line, each shortened to 40 characters, controls escaped."""
    short = [name if len(name) <= 40 else f"{name[:39]}…" for name in names[:10]]
    shown = ", ".join(name if name.isprintable() else repr(name)[1:-1] for name in short)
    return f"{shown}, and {len(names) - 10} more" if len(names) > 10 else shown or "nothing"


def refuse_characters(name: str, value: str) -> None:
    """Refuse characters that neither a tokenizer nor a file takes; `name` is what the message calls the value.

    Raises:
        DataError: the value holds a NUL or half of a surrogate pair.
    """
    if "\0" in value:
        raise DataError(f"{name} holds a NUL character; remove it")
    if not value.isascii() and _SURROGATE.search(value):
        half = f"{name} holds half of a surrogate pair (\\ud800 to \\udfff); write the whole character"
        raise DataError(half, check="encoding")


def clean_text(text: str, rules: TextRules) -> str:
    """Strip separators from the end of a text, repeatedly, and trailing white space; calling it twice changes nothing.

    White space around separators does not matter: a prompt that was stripped, or ends in two separators, gives the
    same text as one that ends in one. Leading white space stays.
    """
    own = (rules.separator or "").rstrip()
    return _strip_endings(text, (*KNOWN_SEPARATORS, own) if own else KNOWN_SEPARATORS)


def clean_label(label: object, rules: TextRules) -> str:
    """Turn one label as written into the name of its class; "" when nothing is left.

    Numbers and booleans become their JSON text.

    Raises:
        DataError: the label is null, a list, an object, or not a finite number.
    """
    suffix = rules.label_suffix.rstrip()
    return _strip_endings(label_text(label).strip(), (suffix,) if suffix else ())


def label_text(label: object) -> str:
    """Spell a label as written: strings as they are, numbers and booleans as JSON; raises as `clean_label` does."""
    if isinstance(label, str):
        return label
    if isinstance(label, (bool, int)) or (isinstance(label, float) and math.isfinite(label)):
        return json.dumps(label)
    found = "not a finite number" if isinstance(label, float) else json_type(label)
    check = "empty_label" if label is None else "malformed"
    raise DataError(f"label is {found}, expected a string; give the row a label or remove it", check=check)


def flatten_chat(messages: Sequence[Mapping[str, Any]], rules: TextRules) -> str:
    """Make one cleaned text of chat messages, the final assistant answer not among them.

    A single user message is its content; several messages become lines `role: content`.

    Raises:
        ChatError: no user message, an unknown role, or content that is not text.
    """
    turns = [(_role(message, index), _content(message, index)) for index, message in enumerate(messages)]
    if not any(role == "user" for role, _ in turns):
        raise ChatError("has no user message; expected at least one")
    kept = [turn for turn in turns if not (rules.ignore_system and turn[0] in _SYSTEM_ROLES)]
    text = kept[0][1] if len(kept) == 1 else "\n".join(f"{role}: {content}" for role, content in kept)
    return clean_text(text, rules)


def message_text(message: Mapping[str, Any], index: int) -> str:
    """Return the text of one chat message; parts are joined by newlines. Raises ChatError as `flatten_chat` does."""
    _role(message, index)
    return _content(message, index)


def system_text(messages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the contents of the system and developer messages, in order; for learning `ignore_system`."""
    return tuple(message_text(message, i) for i, message in enumerate(messages) if message.get("role") in _SYSTEM_ROLES)


def learn_separator(prompts: Iterable[str]) -> str | None:
    """Find the ending that all prompts share beyond the well-known separators; None when there is none.

    It counts when it is at least two characters of white space, punctuation and symbols, and leaves some text in
    every prompt. A shared ending that starts in the middle of a word counts from where the word stops.
    """
    cleaned = {clean_text(prompt, TextRules()) for prompt in prompts}
    shared = _common_suffix(cleaned)
    start = len(shared)
    while start and _is_mark(shared[start - 1]):
        start -= 1
    separator = _smallest_unit(shared[start:])
    endings = (separator.rstrip(),)
    if len(separator) < 2 or any(not _strip_endings(prompt, endings).strip() for prompt in cleaned):
        return None
    return separator


def learn_label_suffix(labels: Iterable[str]) -> str:
    """Find the ending that all completions share and that only marks their end; "" when there is none.

    It is a run of stop words (" END") or of two or more marks ("###"). Shared words and word endings ("play music",
    "stop music") are part of the labels and stay.
    """
    distinct = {label.strip() for label in labels}
    shared = _common_suffix(distinct)
    rest = shared
    while (shorter := _without_end_mark(rest)) != rest:
        rest = shorter
    suffix = shared[len(rest) :]
    return "" if any(not label.removesuffix(suffix).strip() for label in distinct) else suffix


def _strip_endings(text: str, endings: tuple[str, ...]) -> str:
    """Remove endings and white space from the end until none is left, in time linear in the text."""
    text = text.rstrip()
    if not text.endswith(endings):
        return text
    end = len(text)
    while ending := next((ending for ending in endings if text.endswith(ending, 0, end)), ""):
        end -= len(ending)
        while end and text[end - 1].isspace():
            end -= 1
    return text[:end]


def _without_end_mark(text: str) -> str:
    """Remove one stop word, or one run of end marks that is two characters long with the white space before it."""
    for word in STOP_WORDS:
        if text.endswith(word):
            return text.removesuffix(word).rstrip()
    before = text.rstrip(END_MARKS).rstrip()
    return before if len(text) - len(before) >= 2 else text


def _is_mark(char: str) -> bool:
    return char.isspace() or unicodedata.category(char)[0] in "PS"


def _common_suffix(texts: set[str]) -> str:
    """Return the longest ending of all texts; "" for fewer than two, where everything would be shared."""
    if len(texts) < 2:
        return ""
    least, most = (pick(text[: -_LONGEST_ENDING - 1 : -1] for text in texts) for pick in (min, max))
    pairs = zip(least, most, strict=False)  # what these two share, all share
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))[::-1]


def _smallest_unit(text: str) -> str:
    """Return the shortest string of two or more characters of which `text` is a repetition."""
    sizes = (size for size in range(2, len(text)) if text[:size] * (len(text) // size) == text)
    return text[: next(sizes, len(text))]


def _role(message: Mapping[str, Any], index: int) -> str:
    if not isinstance(cast(object, message), Mapping):
        raise ChatError(f"is {json_type(message)}, expected an object with role and content", index)
    role: object = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        found = f'"{listed([role])}"' if isinstance(role, str) else json_type(role) if "role" in message else "missing"
        raise ChatError(f"is {found}, expected one of {', '.join(ROLES)}", index, "role")
    return role


def _content(message: Mapping[str, Any], index: int) -> str:
    content: object = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        found = json_type(content) if "content" in message else "missing"
        raise ChatError(f"is {found}, expected a string or a list of text parts", index, "content")
    return "\n".join(_part(part, index) for part in cast(list[object], content))


def _part(part: object, index: int) -> str:
    if isinstance(part, dict):
        fields = cast(dict[str, object], part)
        text = fields.get("text")
        if fields.get("type") == "text" and isinstance(text, str):
            return text
    raise ChatError('holds a part that is not text, expected {"type": "text", "text": "..."}', index, "content")
