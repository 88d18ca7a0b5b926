"""Training and scoring on a GPU, beside transformers and beside what its matrix products reach.

    python -m benchmarks.gpu --data ../shared/data --out runs/gpu

Models are made by configuration with random weights, texts are random tokens, as many as real texts have; so nothing
has to be fetched. Both sides work in bfloat16, on the same texts in equal batches, in turn. Only real tokens count.
`--tiny` tries it out, on a CPU too. Writes gpu.json and gpu.md into the folder --out.
"""

import argparse
import json
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_models as models
from benchmarks.gpu_sides import WARM, our_scoring, our_training, settle, their_scoring, their_training
from benchmarks.speed.harness import Line, Options, alternate, as_record, say
from benchmarks.speed.machine import machine
from benchmarks.speed.report import full_table

_WANTED = 3.0
"""How many times faster, for encoders on short texts."""


def matrix_rate(device: torch.device, size: int, seconds: float = 1.0) -> float:
    """Floating-point operations a second of a product of two square matrices in bfloat16."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = left @ right
    settle(device)
    began, times = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(10):
            torch.mm(left, right, out=out)
        settle(device)
        times += 10
    return times * 2 * size**3 / (time.perf_counter() - began)


def measure(options: argparse.Namespace) -> tuple[float, list[Line]]:
    """The rate of matrix products, and a line for each model, kind of work and lengths."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate, lines = matrix_rate(device, 256 if options.tiny else 8192), list[Line]()
    harness = Options(None, Path(), Path(), runs=options.runs)
    for name in options.models:
        config = models.configuration(name, tiny=options.tiny)
        for lengths in options.lengths:
            texts = models.texts(lengths, (options.steps + WARM) * options.batch, config.vocab_size, options.data)
            for kind in ("full", "lora"):
                say(f"{name}, {lengths}, {kind}")
                ours, each = our_training(config, texts, options.batch, kind == "lora")
                theirs = their_training(config, texts, options.batch, kind == "lora")
                found = alternate({"ours": ours, "theirs": theirs}, harness)
                share = statistics.median(found["ours"]) * each / rate
                work = f"training, {name}, {kind}, lengths of {lengths}, batches of {options.batch}"
                note = f"{share:.0%} of the matrix rate"
                lines.append(
                    Line(work, "tokens/s", found["ours"], "Trainer", found["theirs"], wanted=_WANTED, note=note)
                )
            sides = {"ours": our_scoring(config, texts, device), "theirs": their_scoring(config, texts, device)}
            for side in sides.values():
                side(0)  # the first time takes longer
            found = alternate(sides, harness)
            work = f"scoring, {name}, lengths of {lengths}"
            lines.append(Line(work, "pairs/s", found["ours"], "padded SDPA", found["theirs"], wanted=_WANTED))
    return rate, lines


def ask(arguments: list[str] | None = None) -> argparse.Namespace:
    """What to measure, from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with one folder per data set; lengths are drawn without")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for the results")
    parser.add_argument("--models", nargs="+", choices=models.CONFIGS, default=list(models.CONFIGS), metavar="MODEL")
    parser.add_argument("--lengths", nargs="+", choices=models.LENGTHS, default=list(models.LENGTHS), metavar="SET")
    parser.add_argument("--batch", type=int, default=128, help="texts of a step")
    parser.add_argument("--steps", type=int, default=40, help="steps of a turn")
    parser.add_argument("--runs", type=int, default=5, help="turns")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try it out")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write."""
    options = ask(arguments)
    rate, lines = measure(options)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    record: dict[str, Any] = {
        "lines": as_record(lines),
        "matrix_tflops": round(rate / 1e12, 3),
        "runs": options.runs,
        "size": 0.01 if options.tiny else 1,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{gpu} ({rate / 1e12:.3g} TFLOP/s of bfloat16 matrix products), {machine()}",
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    table = full_table({"gpu": record}, ["gpu"]) + "\n"
    (options.out / "gpu.md").write_text(table, encoding="utf-8")
    sys.stdout.write(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
