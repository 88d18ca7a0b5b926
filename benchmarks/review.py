"""How long a review of many rows takes, and how much memory a row costs.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/review.py --rows 100000

Makes a file of prompts and completions of some 50 words with all that a review looks for, then reviews it and writes
the result in a process of its own, on one core, tokens counted by the embedded encoder.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = (Path(__file__).parents[1] / "examples/support/train.csv").read_text(encoding="utf-8").split()


def make(path: Path, rows: int) -> None:
    """Write the file: one row in a hundred repeats another, one in two hundred is broken, blank or marked up."""
    rng = random.Random(0)
    labels = [f"topic {number}" for number in range(40)]
    prompts = [" ".join(rng.choices(WORDS, k=rng.randint(20, 80))) for _ in range(rows)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            source = number - 1 if number % 100 == 99 else number
            prompt = {0: " ", 1: f"<b>{prompts[source]}</b> &amp; more"}.get(number % 400, prompts[source])
            label = labels[source * 7 % 40].title() if number % 300 == 7 else labels[source * 7 % 40]
            line = json.dumps({"prompt": f"{prompt} ->", "completion": f" {label}"})
            file.write((line[:-3] if number % 400 == 2 else line) + "\n")


def measure(path: Path) -> None:
    """Review a file and print seconds, rows and the peak of memory beyond that before."""
    from training.review import review

    review(path.with_name("small.jsonl"))  # libraries and the tokenizer are loaded by now
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, busy = time.perf_counter(), time.process_time()
    found = review(path)
    seconds, working = time.perf_counter() - start, time.process_time() - busy
    found.write(path.with_name("train.jsonl"), path.with_name("valid.jsonl"))
    written = time.process_time() - busy
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(  # noqa: T201
        f"{found.read:,} rows of {path.stat().st_size / found.read:.0f} bytes: reviewed in {seconds:.1f} s "
        f"({working:.1f} s of processor time, {written:.1f} s with writing); "
        f"peak memory {grown / found.read:.0f} bytes a row; "
        f"{sum(finding.applied for finding in found.findings)} fixes, {found.train.tokens:,} tokens"
    )


def main() -> None:
    """Make the files and measure in another process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "small.jsonl", 2_000)
        make(Path(folder) / "large.jsonl", options.rows)
        subprocess.run([sys.executable, __file__, "--measure", str(Path(folder) / "large.jsonl")], check=True)


if __name__ == "__main__":
    main()
