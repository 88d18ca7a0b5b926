"""Text to token ids: the one encode of training, evaluation and serving."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.errors import EncoreError, ModelError
from training.text import TextRules, clean_text

Truncate = Literal["START", "END", "NONE"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one text or of a pair of texts, special tokens included; `len()` is their number."""

    ids: list[int] | NDArray[np.int32]
    """A list, or a view of where they are stored."""
    split: int = 0
    """Where the second text of a pair begins; 0: it is one text."""

    def __len__(self) -> int:
        return len(self.ids)


def side_by_side(
    items: Sequence[Encoded], token: int, longest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Encoded texts as a rectangle, each filled up to `longest` with `token` on the right.

    Returns:
        Ids (items, longest); a mask of the same shape, 1 where there is a token; and `Encoded.split` (items,).
    """
    ids = np.full((len(items), longest), token, dtype=np.int64)
    mask = np.zeros((len(items), longest), dtype=np.int64)
    for row, item in enumerate(items):
        ids[row, : len(item)] = item.ids
        mask[row, : len(item)] = 1
    return ids, mask, np.array([item.split for item in items], dtype=np.int64)


class TooLongError(EncoreError):
    """A text has more tokens than the model takes, and cutting it was not allowed."""

    def __init__(self, index: int, tokens: int, limit: int) -> None:
        super().__init__(f"text {index} has {tokens} tokens, the model takes {limit}; shorten it or allow truncation")
        self.index, self.tokens, self.limit = index, tokens, limit


class Encoder:
    """A tokenizer with the limits and text rules of one checkpoint; threads may share it."""

    def __init__(self, tokenizer: Tokenizer, pad_token: int, max_length: int, rules: TextRules) -> None:
        """Take a tokenizer over: its own truncation and padding are switched off.

        Args:
            tokenizer: of the `tokenizers` library.
            pad_token: id that fills shorter texts up.
            max_length: tokens an encoded text or pair may have, special tokens included.
            rules: applied to every text before it is split.

        Raises:
            ModelError: the tokenizer needs all of `max_length` for its special tokens.
        """
        self.tokenizer, self.pad_token, self.max_length, self.rules = tokenizer, pad_token, max_length, rules
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._special = int(tokenizer.num_special_tokens_to_add(False))
        if max_length <= self._special:
            raise ModelError(f"max_length {max_length} leaves no room for text beside the special tokens; raise it")

    @classmethod
    def of(cls, tokenizer: Any, max_length: int, rules: TextRules) -> "Encoder":
        """Wrap a Hugging Face tokenizer; arguments and errors as above.

        Raises:
            ModelError: it has no fast backend.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(f"{tokenizer.name_or_path} has no fast tokenizer (tokenizer.json); save it with one")
        return cls(backend, int(tokenizer.pad_token_id), max_length, rules)

    def encode(self, texts: Sequence[str], truncate: Truncate = "END") -> list[Encoded]:
        """Turn texts into ids, cut to `max_length` tokens.

        Args:
            texts: raw texts; the text rules are applied here.
            truncate: which end to drop of a text that is too long; NONE refuses it.

        Raises:
            TooLongError: `truncate` is NONE and a text is too long.
        """
        room, encoded = self.max_length - self._special, list[Encoded]()
        for index, piece in enumerate(self._pieces(texts)):
            if len(piece) > room:
                if truncate == "NONE":
                    raise TooLongError(index, len(piece) + self._special, self.max_length)
                # Encoding.truncate keeps the part at the side opposite to its "direction" of cutting.
                piece.truncate(room, direction="right" if truncate == "END" else "left")
            encoded.append(Encoded(self._finish(piece)))
        return encoded

    def encode_pieces(self, texts: Sequence[str], chunks: int, cut: int | None = None) -> list[list[Encoded]]:
        """Turn each text into as many encoded pieces as it needs; `chunks` and `cut` as in `encode_pairs`."""
        room = self.max_length - self._special
        return [[Encoded(self._finish(p)) for p in _divide(piece, room, chunks, cut)] for piece in self._pieces(texts)]

    def encode_pairs(
        self, queries: Sequence[str], passages: Sequence[Sequence[str]], chunks: int = 1, cut: int | None = None
    ) -> list[list[list[Encoded]]]:
        """Turn each query and each of its passages into pairs of `max_length` tokens at most.

        A pair is the two texts, each encoded as if it stood alone, one after the other. A query is kept whole up to
        half the length. A passage takes what room is left; one that needs more is divided into consecutive pieces.

        Args:
            queries: raw texts.
            passages: raw texts for each query.
            chunks: how many pieces of a passage to keep, the first ones; at least one.
            cut: tokens of a passage to keep before it is divided.

        Returns:
            For each query and each of its passages, a pair for every piece.

        Raises:
            ModelError: `max_length` has no room for a token of either text beside the special tokens.
        """
        if self.max_length < 2 * (self._special + 1):
            raise ModelError(f"max_length {self.max_length} leaves no room for a query and a passage; raise it")
        flat = self._pieces([passage for group in passages for passage in group])
        starts, done = [self._query(piece) for piece in self._pieces(queries)], 0
        encoded: list[list[list[Encoded]]] = []
        for start, group in zip(starts, passages, strict=True):
            room = self.max_length - len(start) - self._special
            mine, done = flat[done : done + len(group)], done + len(group)
            encoded.append([[self._pair(start, piece) for piece in _divide(p, room, chunks, cut)] for p in mine])
        return encoded

    def _pieces(self, texts: Sequence[str]) -> list[Any]:
        """Texts as encodings without special tokens."""
        cleaned = [clean_text(text, self.rules) for text in texts]
        if len(cleaned) == 1:  # a batch lets other threads run meanwhile, and waits for its turn again
            return [self.tokenizer.encode(cleaned[0], add_special_tokens=False)]
        return list(self.tokenizer.encode_batch(cleaned, add_special_tokens=False))

    def _query(self, piece: Any) -> list[int]:
        half = max(self.max_length // 2 - self._special, 1)
        if len(piece) > half:
            piece.truncate(half)
        return self._finish(piece)

    def _pair(self, start: list[int], piece: Any) -> Encoded:
        return Encoded(start + self._finish(piece), len(start))

    def _finish(self, piece: Any) -> list[int]:
        """Ids with special tokens; at least one, whatever the text."""
        return self.tokenizer.post_process(piece).ids or [self.pad_token]


def _divide(piece: Any, room: int, chunks: int, cut: int | None) -> list[Any]:
    """The first `chunks` stretches of `room` tokens."""
    if cut is not None and len(piece) > cut:
        piece.truncate(cut)
    if len(piece) <= room:
        return [piece]
    piece.truncate(room)
    return [piece, *piece.overflowing[: chunks - 1]]
