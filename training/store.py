"""Examples whose tokens lie in a file: encoded once, batch by batch, and mapped into memory.

An Arrow file holds the tokens of a run's rows, one text or pair after the other. In memory is what a row needs
besides: where its items begin, which of the distinct targets is theirs. So memory does not grow with the tokens, and
any row is found as quickly as any other.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.atomic import staged
from training.batches import Example
from training.engine.encoding import Encoded, Encoder

Row = TypeVar("Row")
_TEXTS = 2048
"""Texts encoded together: enough for all threads of the tokenizer, few enough that memory is no matter."""
_COLUMNS = [("ids", pa.list_(pa.int32())), ("split", pa.int32())]


@dataclass(frozen=True, eq=False)
class TokenStore(Sequence[Encoded]):
    """Encoded texts or pairs in the record batches of an Arrow file; the ids of each are a view of the file."""

    batches: list[tuple[NDArray[np.int32], memoryview, memoryview]]
    """Of each record batch its ids, where each item begins in them, and its splits."""
    starts: list[int]
    """The number of the first item of each record batch."""
    numbers: range | memoryview
    """Which of the file's items these are. Single numbers come out of a memoryview sooner than out of an array."""
    lengths: NDArray[np.int32]
    """Tokens of each."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Encoded:  # pyright: ignore[reportIncompatibleMethodOverride]
        number = self.numbers[index]
        position = bisect_right(self.starts, number) - 1
        ids, bounds, splits = self.batches[position]
        row = number - self.starts[position]
        return Encoded(ids[bounds[row] : bounds[row + 1]], splits[row])

    def take(self, positions: NDArray[np.int64]) -> "TokenStore":
        """Some of these items, in the order asked for."""
        return replace(self, numbers=np.asarray(self.numbers)[positions].data, lengths=self.lengths[positions])

    @classmethod
    def read(cls, source: Any) -> Self:
        """Take the items of an Arrow file, which is open for reading."""
        reader = pa.ipc.open_file(source)
        found = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        batches = [
            (batch["ids"].values.to_numpy(), batch["ids"].offsets.to_numpy().data, batch["split"].to_numpy().data)
            for batch in found
        ]
        starts = list(accumulate(map(len, found), initial=0))
        lengths = [np.diff(np.frombuffer(bounds, np.int32)) for _, bounds, _ in batches]
        return cls(batches, starts[:-1], range(starts[-1]), np.concatenate([np.zeros(0, np.int32), *lengths]))


def store_tokens(
    rows: Sequence[Row],
    texts: Callable[[Row], Sequence[str]],
    encode: Callable[[Sequence[Row]], Iterable[Encoded]],
    encoder: Encoder,
    path: Path | None = None,
) -> TokenStore:
    """Encode rows to a file, unless it holds the tokens of the same texts by the same tokenizer already.

    Several processes may ask for the same file: each finds it whole or writes it.

    Args:
        rows: of any kind.
        texts: all the texts of a row that become tokens.
        encode: the items of some rows, in order.
        encoder: which `encode` uses.
        path: of the file; None keeps it in memory.

    Returns:
        The items of all rows, in order.
    """
    items = (list(encode(batch)) for batch in _batches(rows, texts))
    if path is None:
        sink = pa.BufferOutputStream()
        _write(sink, items, "")
        return TokenStore.read(pa.BufferReader(sink.getvalue()))
    key = _key(rows, texts, encoder)
    if _key_of(path) == key:
        return TokenStore.read(pa.memory_map(str(path)))
    path.parent.mkdir(exist_ok=True)
    with staged(path, str(os.getpid())) as place:
        with place.open("wb") as file:
            _write(file, items, key)
        return TokenStore.read(pa.memory_map(str(place)))


def _batches(rows: Sequence[Row], texts: Callable[[Row], Sequence[str]]) -> Iterator[list[Row]]:
    """Stretches of rows with about as many texts each."""
    batch, count = list[Row](), 0
    for row in rows:
        batch.append(row)
        count += len(texts(row))
        if count >= _TEXTS:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def _write(sink: Any, items: Iterable[list[Encoded]], key: str) -> None:
    schema = pa.schema(_COLUMNS, metadata={"key": key})
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in items:
            bounds = np.cumsum([0, *map(len, batch)], dtype=np.int32)
            ids = np.fromiter(chain.from_iterable(item.ids for item in batch), np.int32, bounds[-1])
            splits = np.fromiter((item.split for item in batch), np.int32, len(batch))
            writer.write_batch(pa.record_batch([pa.ListArray.from_arrays(bounds, ids), splits], schema=schema))


def _key(rows: Sequence[Row], texts: Callable[[Row], Sequence[str]], encoder: Encoder) -> str:
    """What the tokens follow from: the texts, the tokenizer, the limits, and whose code it is."""
    versions = [version("encore"), version("tokenizers")]
    limits = [encoder.max_length, encoder.pad_token, encoder.rules.model_dump(), versions]
    digest = hashlib.sha256(json.dumps(limits).encode())
    digest.update(encoder.tokenizer.to_str().encode())
    for batch in _batches(rows, texts):
        digest.update(json.dumps([list(texts(row)) for row in batch]).encode())
    return digest.hexdigest()


def _key_of(path: Path) -> str | None:
    """The key under which a file was written, or None if there is no such file."""
    try:
        with pa.memory_map(str(path)) as source:
            metadata = pa.ipc.open_file(source).schema.metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    return metadata.get(b"key", b"").decode()


@dataclass(frozen=True, eq=False)
class ExampleStore(Sequence[Example]):
    """Examples made on demand of stored items."""

    items: TokenStore
    """Of all examples, one after the other."""
    starts: NDArray[np.int64]
    """(examples + 1,): where the items of each begin."""
    targets: NDArray[np.float32]
    """The distinct targets: (distinct, labels) of texts, (distinct,) of pairs."""
    codes: NDArray[np.int32]
    """(items,): which of the targets is each one's."""
    weights: NDArray[np.float64]
    """(examples,): in the loss."""
    missed: Mapping[int, tuple[float, ...]] = field(default_factory=dict[int, tuple[float, ...]])
    """`Example.missed` of the examples that have any."""

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: int) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride]
        number = range(len(self))[index]
        starts, codes, weights = self._views
        begin, end = starts[number], starts[number + 1]
        items = tuple([self.items[position] for position in range(begin, end)])
        one = end - begin == 1  # as all texts are; a slice is a view, and made sooner than a copy
        target = self.targets[codes[begin] : codes[begin] + 1] if one else self.targets[self.codes[begin:end]]
        return Example(items, target, weights[number], self.missed.get(number, ()))

    @cached_property
    def _views(self) -> tuple[memoryview, memoryview, memoryview]:
        return self.starts.data, self.codes.data, self.weights.data

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """(examples,): tokens of the longest item of each, as `Example.longest`; each must have an item."""
        return np.maximum.reduceat(self.items.lengths, self.starts[:-1])
