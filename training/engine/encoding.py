"""Text to token ids: the one encode of training, evaluation and serving."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from training.errors import EncoreError, ModelError
from training.text import TextRules, clean_text

Truncate = Literal["START", "END", "NONE"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one text, special tokens included; `len()` is their number."""

    ids: list[int]

    def __len__(self) -> int:
        return len(self.ids)


class TooLongError(EncoreError):
    """A text has more tokens than the model takes, and cutting it was not allowed."""

    def __init__(self, index: int, tokens: int, limit: int) -> None:
        super().__init__(f"text {index} has {tokens} tokens, the model takes {limit}; shorten it or allow truncation")
        self.index, self.tokens, self.limit = index, tokens, limit


class Encoder:
    """A tokenizer with the limits and text rules of one checkpoint; threads may share it."""

    def __init__(self, tokenizer: Any, max_length: int, rules: TextRules) -> None:
        """Wrap a fast tokenizer.

        Args:
            tokenizer: a Hugging Face tokenizer backed by the `tokenizers` library.
            max_length: tokens an encoded text may have, special tokens included.
            rules: applied to every text before it is split.

        Raises:
            ModelError: the tokenizer has no fast backend, or needs all of `max_length` for its special tokens.
        """
        self.tokenizer, self.max_length, self.rules = tokenizer, max_length, rules
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(f"{tokenizer.name_or_path} has no fast tokenizer (tokenizer.json); save it with one")
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._room = max_length - backend.num_special_tokens_to_add(False)
        if self._room < 1:
            raise ModelError(f"max_length {max_length} leaves no room for text beside the special tokens; raise it")

    def encode(self, texts: Sequence[str], truncate: Truncate = "END") -> list[Encoded]:
        """Turn texts into ids, cut to `max_length` tokens.

        Args:
            texts: raw texts; the text rules are applied here.
            truncate: which end to drop of a text that is too long; NONE refuses it.

        Raises:
            TooLongError: `truncate` is NONE and a text is too long.
        """
        pieces = self._backend.encode_batch([clean_text(t, self.rules) for t in texts], add_special_tokens=False)
        encoded: list[Encoded] = []
        for index, piece in enumerate(pieces):
            if len(piece) > self._room:
                if truncate == "NONE":
                    special = self.max_length - self._room
                    raise TooLongError(index, len(piece) + special, self.max_length)
                # Encoding.truncate keeps the part at the side opposite to its "direction" of cutting.
                piece.truncate(self._room, direction="right" if truncate == "END" else "left")
            ids = self._backend.post_process(piece).ids
            encoded.append(Encoded(ids or [self.tokenizer.pad_token_id]))
        return encoded
