"""Counting tokens as the encoder's own tokenizer does, without loading the encoder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer

from training.errors import ModelError
from training.formats import Task
from training.hub import EMBEDDED, embedded_folder, resolve_base
from training.review.options import ReviewOptions

LONGEST: dict[Task, int] = {"classify": 256, "rerank": 512}
"""Tokens that training takes of a text or a pair where nothing else is said (`max_length: auto`)."""
_CHARACTERS = 100_000
"""Longer texts are counted by their beginning: tokenizers take seconds for a cell of megabytes."""


class Encoder:
    """The tokenizer of a base model and what the model takes."""

    def __init__(self, folder: Path, task: Task, max_length: int | None) -> None:
        """Load them from the base's folder.

        Raises:
            ModelError: the folder has no usable tokenizer.json.
        """
        path = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"{path} cannot be read as a tokenizer: {reason}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.limit = max_length or min(LONGEST[task], _positions(folder))
        self.pair_extra = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        normalizer = self._tokenizer.normalizer
        self.cased = normalizer is None or normalizer.normalize_str("A") != "a"

    def count(self, texts: Sequence[str], *, special: bool = True) -> list[int]:
        """Tokens of each text, not truncated, with the special tokens around a text if they are wanted."""
        if not texts:
            return []
        encoded = self._tokenizer.encode_batch_fast([t[:_CHARACTERS] for t in texts], add_special_tokens=special)
        return [
            len(found) * max(len(text), 1) // max(min(len(text), _CHARACTERS), 1)
            for found, text in zip(encoded, texts, strict=True)
        ]


def load_encoder(options: ReviewOptions, task: Task) -> Encoder | None:
    """Load what counts tokens; None where the default encoder is not installed and nobody asked for it.

    Raises:
        ModelError: the encoder that was asked for is not found.
    """
    if options.encoder == EMBEDDED and "encoder" not in options.model_fields_set:
        folder = embedded_folder(EMBEDDED)
        return None if folder is None else Encoder(folder, task, options.max_length)
    return Encoder(resolve_base(options.encoder), task, options.max_length)


def _positions(folder: Path) -> int:
    """Tokens a text may have, special tokens included: the tighter of tokenizer and position embeddings."""
    config, tokenizer = _read(folder / "config.json"), _read(folder / "tokenizer_config.json")
    limits = [config.get("max_position_embeddings"), config.get("n_positions"), tokenizer.get("model_max_length")]
    if "roberta" in str(config.get("model_type")) and isinstance(limits[0], int):
        limits[0] -= int(config.get("pad_token_id") or 0) + 1  # positions start after the padding index
    return int(min((limit for limit in limits if isinstance(limit, (int, float)) and limit > 2), default=10**9))


def _read(path: Path) -> dict[str, Any]:
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
