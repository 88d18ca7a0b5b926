"""The labels of all rows: as written, as they are to be written, and what of them is one class.

Every distinct spelling is kept once, every distinct set of them once; rows refer to sets by number.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import combinations

import numpy as np
import numpy.typing as npt

from training.review.cleanup import repair, shared_start
from training.text import TextRules, clean_label, learn_label_suffix

_TYPO_LABELS = 2_000
"""Labels beyond which no typos are looked for: every pair is compared."""
_JOINTS = re.compile(r"[\s_.\-]+")


class LabelTable:
    """Spellings of labels, and sets of them."""

    def __init__(self) -> None:
        self.surfaces: list[str] = []
        """As written, in order of appearance."""
        self.spellings: list[str | None] = []
        """As they are to be written; None for a label that is left out."""
        self.sets: list[tuple[int, ...]] = []
        self.completions = False
        """Whether labels are completions: white space in front, and a common end mark, are no part of them."""
        self.suffix = ""
        """The end mark, while it is still there; training removes it in any case."""
        self._surface_ids: dict[str, int] = {}
        self._set_ids: dict[tuple[int, ...], int] = {}

    def add(self, surfaces: tuple[str, ...]) -> int:
        """The number of the set of these labels."""
        ids = tuple(self._surface_id(surface) for surface in surfaces)
        known = self._set_ids.setdefault(ids, len(self.sets))
        if known == len(self.sets):
            self.sets.append(ids)
        return known

    def _surface_id(self, surface: str) -> int:
        known = self._surface_ids.setdefault(surface, len(self.surfaces))
        if known == len(self.surfaces):
            self.surfaces.append(surface)
            self.spellings.append(surface)
        return known

    def names(self) -> list[str]:
        """The class of each spelling, as training will call it; "" for one left out."""
        rules = TextRules(label_suffix=self.suffix)
        return ["" if spelling is None else clean_label(spelling, rules) for spelling in self.spellings]

    def classes(self) -> tuple[npt.NDArray[np.int64], list[tuple[str, ...]]]:
        """Number of the classes of each set, and the classes of each such number, sorted by name."""
        names, known = self.names(), dict[tuple[str, ...], int]()
        numbers = [
            known.setdefault(tuple(sorted({names[i] for i in ids if names[i]})), len(known)) for ids in self.sets
        ]
        return np.array(numbers, dtype=np.int64), list(known)

    def counts(self, sets: npt.NDArray[np.int64]) -> list[int]:
        """How often each spelling occurs in rows with these sets."""
        counts = [0] * len(self.surfaces)
        for number, times in enumerate(np.bincount(sets, minlength=len(self.sets)).tolist()):
            for i in self.sets[number] if times else ():
                counts[i] += times
        return counts

    def written(self, number: int) -> list[str]:
        """The labels of a set as they are to be written."""
        spellings = (self.spellings[i] for i in self.sets[number])
        return list(dict.fromkeys(spelling for spelling in spellings if spelling is not None))

    def used(self, counts: list[int]) -> list[int]:
        """The spellings that occur and are not left out."""
        return [i for i, count in enumerate(counts) if count and self.spellings[i] is not None]

    def repaired(self) -> dict[int, str]:
        """Spellings that were wrongly decoded, decoded."""
        mended = ((i, repair(surface)[0]) for i, surface in enumerate(self.surfaces) if not surface.isascii())
        return {i: text for i, text in mended if text != self.surfaces[i]}

    def without_suffix(self, used: list[int]) -> tuple[str, dict[int, str]]:
        """The end mark that all completions share, and the spellings without it."""
        spellings = {i: self.spellings[i] or "" for i in used}
        self.suffix = learn_label_suffix(spellings.values()) if self.completions else ""
        names = self.names()
        tails = {text[len(text.rstrip()) :] for text in spellings.values()}
        suffix = self.suffix or (tails.pop() if self.completions and len(tails) == 1 else "")
        return suffix, {i: _lead(text) + names[i] for i, text in spellings.items()} if suffix else {}

    def without_prefix(self, used: list[int]) -> tuple[str, dict[int, str]]:
        """The words that all labels begin with, and the spellings without them."""
        names = self.names()
        distinct = {names[i] for i in used}
        shared = reduce(shared_start, distinct) if len(distinct) > 1 else ""
        prefix = shared[: shared.rfind(" ") + 1]
        if not prefix or any(not name[len(prefix) :].strip() for name in distinct):
            return "", {}
        return prefix, {i: _lead(self.spellings[i] or "") + names[i][len(prefix) :].strip() for i in used}

    def variants(self, counts: list[int]) -> Iterator[list[int]]:
        """Spellings of what is one label but for case, joints and white space, the most frequent first."""
        groups: dict[str, list[int]] = {}
        for i, name in enumerate(self.names()):
            if name and counts[i]:
                groups.setdefault(_folded(name), []).append(i)
        for group in groups.values():
            ranked = sorted(group, key=lambda i: -counts[i])
            if len({self._compared(i) for i in ranked}) > 1:
                yield ranked

    def _compared(self, i: int) -> str:
        spelling = self.spellings[i] or ""
        return spelling.lstrip() if self.completions else spelling

    def rename(self, spellings: Mapping[int, str | None]) -> None:
        """Write these spellings differently, or not at all."""
        for i, spelling in spellings.items():
            self.spellings[i] = spelling

    def representative(self, name: str, counts: list[int]) -> str:
        """How a class is mostly written; its name, with the usual white space in front, if it does not occur."""
        names = self.names()
        known = max((i for i, other in enumerate(names) if other == name), key=lambda i: counts[i], default=None)
        if known is not None:
            return self.spellings[known] or name
        usual = Counter({_lead(spelling or ""): count for spelling, count in zip(self.spellings, counts, strict=True)})
        return (usual.most_common(1)[0][0] if usual and self.completions else "") + name


def typos(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Pairs of a rare label and the frequent one that it may be meant to be.

    One edit apart with four letters or more, two with eight or more; the rare one has at most 5 % of the other's rows,
    and the digits are the same: class_1 and class_2 are two labels.
    """
    if len(counts) > _TYPO_LABELS:
        return
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    taken = set[str]()
    for often, seldom in combinations(ranked, 2):
        if seldom in taken or counts[seldom] * 20 > counts[often]:
            continue
        shorter = min(len(often), len(seldom))
        most = 2 if shorter >= 8 else 1 if shorter >= 4 else 0
        if most and _digits(often) == _digits(seldom) and within(often.casefold(), seldom.casefold(), most):
            taken.add(seldom)
            yield seldom, often


def within(one: str, other: str, most: int) -> bool:
    """Whether so many insertions, deletions and replacements of a character make one string of the other."""
    if abs(len(one) - len(other)) > most:
        return False
    previous = list(range(len(other) + 1))
    for row, char in enumerate(one, 1):
        current = [row]
        for column, theirs in enumerate(other, 1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (char != theirs)))
        if min(current) > most:
            return False
        previous = current
    return previous[-1] <= most


def _digits(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _folded(name: str) -> str:
    text = unicodedata.normalize("NFC", name).casefold()
    return _JOINTS.sub(" ", text).strip() or text


def _lead(spelling: str) -> str:
    return spelling[: len(spelling) - len(spelling.lstrip())]
