"""How fast it is, beside its peers and beside what the machine could do.

    python -m benchmarks.speed --make-peers runs/peers
    python -m benchmarks.speed all --data ../shared/data --peers runs/peers --work runs/speed
    python -m benchmarks.speed rerank_scoring --data ../shared/data --peers runs/peers --work runs/speed

Each benchmark has its sides do the same work in turn on this machine. `all` is every benchmark of speed, `quality`
those that show that trainings are compared at equal quality. Results go into benchmarks/speed.json by name; the tables
in docs/performance.md and README.md are written from that file. Without --data the project's own sample is worked on.
"""

import argparse
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.quality import HERE, include
from benchmarks.speed.catalogue import BENCHMARKS
from benchmarks.speed.harness import Benchmark, BenchmarkError, Options, as_record, say
from benchmarks.speed.machine import machine, versions
from benchmarks.speed.places import make_peers
from benchmarks.speed.report import Store, full_table, load, merge, short_table
from benchmarks.speed.talk import WorkerError


def ask(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What to measure, from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Options(None, Path("runs/peers"), Path("runs/speed"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--make-peers", type=Path, metavar="FOLDER", help="make the peers' virtual environments")
    parser.add_argument("--data", type=Path, help="folder with one folder per data set")
    parser.add_argument("--peers", type=Path, default=default.peers, help="folder of the virtual environments")
    parser.add_argument("--work", type=Path, default=default.work, help="folder for models, splits and logs")
    parser.add_argument("--runs", type=int, default=default.runs, help="turns")
    parser.add_argument("--patience", type=float, default=default.patience, help="seconds a side may take in all turns")
    parser.add_argument("--size", type=float, default=default.size, help="factor on the work, to try a benchmark")
    parser.add_argument("--seeds", type=int, default=default.seeds, help="trainings whose quality is compared")
    parser.add_argument("--store", type=Path, default=HERE / "speed.json", help="file of the records")
    parser.add_argument("--tables", action="store_true", help="write the tables again")
    given = parser.parse_args(arguments)
    # Not by `choices`, with which Python 3.11 wants a name also where there need not be one.
    known = ["all", "quality", *BENCHMARKS]
    if unknown := set(given.names) - set(known):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return given


def chosen(names: list[str]) -> list[Benchmark]:
    """Benchmarks by name, each once."""
    groups = {
        "all": [name for name, one in BENCHMARKS.items() if not one.quality],
        "quality": [name for name, one in BENCHMARKS.items() if one.quality],
    }
    return [BENCHMARKS[name] for name in dict.fromkeys(n for given in names for n in groups.get(given, [given]))]


def write_tables(store: Store) -> None:
    """Put the tables where they are quoted."""
    include(full_table(store, list(BENCHMARKS)), HERE.parent / "docs/performance.md", "speed")
    include(short_table(store, list(BENCHMARKS)), HERE.parent / "README.md", "speed")


def carry_out(benchmark: Benchmark, options: Options, store: Path) -> Store | None:
    """Measure, and add the record to the store; a benchmark that fails is reported, and the others go on."""
    say(f"\n{benchmark.name}")
    try:
        lines = benchmark.measure(options)
    except (BenchmarkError, WorkerError) as error:
        say(f"{benchmark.name} failed: {error}")
        return None
    except Exception:  # whatever it is, the others are measured all the same
        traceback.print_exc()
        return None
    record = {
        "lines": as_record(lines),
        "runs": options.runs,
        "size": options.size,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }
    sys.stdout.write(full_table({benchmark.name: record}, [benchmark.name]) + "\n\n")
    sys.stdout.flush()
    return merge(store, benchmark.name, record)


def main() -> int:
    """Measure, write the tables; 1 when a benchmark failed."""
    given = ask()
    if given.make_peers:
        make_peers(given.make_peers)
    options = Options(given.data, given.peers, given.work, given.runs, given.patience, given.size, given.seeds)
    stores = [carry_out(benchmark, options, given.store) for benchmark in chosen(given.names)]
    if given.tables or (any(stores) and given.store == HERE / "speed.json"):
        write_tables(load(given.store))
    return int(None in stores)


if __name__ == "__main__":
    sys.exit(main())
