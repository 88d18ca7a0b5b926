"""A query's passages as things to score, and their scores back: the same for evaluation and serving."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from training.calibration import Floats, relevance
from training.engine.encoding import Encoded, Encoder
from training.manifest import Manifest

CHUNKS = 10
"""Pieces of a long passage that are scored unless said otherwise (Cohere API reference, `max_chunks_per_doc`)."""


@dataclass(frozen=True)
class Ranking:
    """One query and its passages, encoded."""

    items: list[Encoded]
    """What is to be scored, in any order and company: pairs; or, for an embedder, the query and then the pieces."""
    pieces: list[int]
    """How many pieces each passage text has, one after the other in `items`."""
    place: list[int]
    """For each passage asked about, which text it is: repeated ones are scored once."""
    manifest: Manifest

    @classmethod
    def plan(
        cls,
        encoder: Encoder,
        manifest: Manifest,
        query: str,
        passages: Sequence[str],
        chunks: int = CHUNKS,
        cut: int | None = None,
    ) -> Self:
        """Encode a query and its passages.

        Args:
            encoder: of the checkpoint.
            manifest: of the checkpoint: a reranker's, or an embedder's.
            query: raw text; kept whole up to half of what the model takes.
            passages: raw texts.
            chunks: pieces of a passage to score, the first ones.
            cut: tokens of a passage to keep before it is divided.
        """
        texts = {text: number for number, text in enumerate(dict.fromkeys(passages))}
        place = [texts[text] for text in passages]
        if manifest.task == "embed":
            found = encoder.encode_pieces(list(texts), chunks, cut)
            items = [*encoder.encode([query]), *(item for group in found for item in group)]
        else:
            [found] = encoder.encode_pairs([query], [list(texts)], chunks, cut)
            items = [item for group in found for item in group]
        return cls(items, [len(group) for group in found], place, manifest)

    def relevance(self, outputs: Floats) -> NDArray[np.float64]:
        """How relevant each passage is (passages,), from 0 to 1: as its best piece is.

        Args:
            outputs: of the network for `items`, (items, width).
        """
        if self.manifest.task == "embed":
            # Embeddings have length one; the cosine's -1 to 1 becomes 0 to 1.
            scores = (1 + np.clip(outputs[1:].astype(np.float64) @ outputs[0].astype(np.float64), -1, 1)) / 2
        else:
            scores = relevance(outputs[:, 0], self.manifest.temperature, self.manifest.bias)
        starts = np.cumsum([0, *self.pieces[:-1]])
        return np.maximum.reduceat(scores, starts)[self.place]
