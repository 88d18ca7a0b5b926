"""What every benchmark has in common: sides that take turns, ratios of medians, and records."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


class BenchmarkError(Exception):
    """A benchmark cannot be carried out; the message says why, and what would help."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    data: Path | None
    """Folder with one folder per data set; None: the project's own sample stands for all of them."""
    peers: Path
    """Folder with the peers' virtual environments."""
    work: Path
    """Folder for models, splits and logs; what is in it is used again."""
    runs: int = 5
    patience: float = 90.0
    """Seconds after which a side is not run again; it is run once at least."""
    size: float = 1.0
    """Factor on the number of queries, rows and seconds; below 1 to try a benchmark, not to measure."""
    seeds: int = 3
    """Trainings of each kind where the quality of training is compared."""

    def scaled(self, number: int) -> int:
        """A number of queries or rows, by `size`; at least two."""
        return max(2, round(number * self.size))


@dataclass(frozen=True)
class Line:
    """One line of the table: ours against one other thing."""

    work: str
    unit: str
    ours: list[float]
    against: str = ""
    theirs: list[float] = field(default_factory=list)
    """Parallel to `ours` as far as it goes; empty where ours is compared with `wanted` itself."""
    less: bool = False
    """Whether a smaller number is the better one."""
    wanted: float | None = None
    """The ratio to be reached; without `theirs`, the number to stay below."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is, by the medians of the turns that both took."""
        turns = min(len(self.ours), len(self.theirs))
        if not turns:
            return None
        return self._ratio(statistics.median(self.ours[:turns]), statistics.median(self.theirs[:turns]))

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest ratio of a turn."""
        ratios = [self._ratio(mine, other) for mine, other in zip(self.ours, self.theirs, strict=False)]
        return (min(ratios), max(ratios)) if ratios else None

    @property
    def reached(self) -> bool | None:
        """Whether what is wanted was measured; None where nothing particular is."""
        if self.wanted is None:
            return None
        return statistics.median(self.ours) < self.wanted if self.ratio is None else self.ratio >= self.wanted

    def _ratio(self, mine: float, other: float) -> float:
        return other / mine if self.less else mine / other


@dataclass(frozen=True)
class Benchmark:
    """One piece of work, and how it is measured."""

    name: str
    measure: Callable[[Options], list[Line]]
    quality: bool = False
    """Whether it shows that a comparison is fair, rather than being one itself."""


def alternate(sides: Mapping[str, Callable[[int], float]], options: Options) -> dict[str, list[float]]:
    """Let each side do the work once, then each once more, and so on; every second turn the other way round.

    Args:
        sides: by name, each takes the number of the turn and gives what it measured.
        options: how many turns; a side that has had its patience sits out the later ones.

    Returns:
        What each side measured, turn by turn from the first on.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    spent = dict.fromkeys(sides, 0.0)
    for turn in range(options.runs):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            if turn and spent[name] * (turn + 1) / turn > options.patience and len(found[name]) == turn:
                say(f"{name}: not run again after {spent[name]:.0f} s")
            elif len(found[name]) == turn:
                began = time.perf_counter()
                found[name].append(sides[name](turn))
                spent[name] += time.perf_counter() - began
                say(f"{name}: {found[name][-1]:.5g}")
    return found


def against(found: Mapping[str, list[float]], ours: str, wanted: Mapping[str, float], **line: Any) -> list[Line]:
    """A line for every other side than ours; `wanted` has the ratio to reach by the name of a side."""
    return [
        Line(ours=found[ours], against=name, theirs=values, wanted=wanted.get(name), **line)
        for name, values in found.items()
        if name != ours
    ]


def as_record(lines: list[Line]) -> list[dict[str, Any]]:
    """Lines as plain values, numbers to six digits."""
    records = [asdict(line) for line in lines]
    for record in records:
        for key in ("ours", "theirs"):
            record[key] = [float(f"{value:.6g}") for value in record[key]]
    return records


def say(text: str) -> None:
    """Tell whoever waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
