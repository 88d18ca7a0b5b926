"""The four hosted notebooks from top to bottom against a server of their own. Run by `make examples DATA=folder`.

    python scripts/examples.py --data ../shared/data                       # all four in full, an hour or so on a laptop
    python scripts/examples.py --data ../shared/data --rows 400 openai_chat

Figures are added to benchmarks/workflows.json; the table in docs/examples.md is written from that file. What an example
writes is in runs/examples.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import ROOT, say, server

sys.path.insert(0, str(ROOT / "benchmarks"))

from quality import include  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

STORE = ROOT / "benchmarks" / "workflows.json"
PAGE = ROOT / "docs" / "examples.md"


@dataclass(frozen=True)
class Example:
    """One notebook."""

    data: str
    """What it reads, within the data folder."""
    hosted: dict[str, float]
    """What the hosted notebook reached on the same rows, as far as it was published."""
    path: str = ""
    """What stands behind the server's address in its `base_url`."""


EXAMPLES = {
    "cohere_classify": Example("atis/atis_subset.csv", {"accuracy": 0.98, "f1_weighted": 0.9805}),
    "cohere_rerank": Example("casehold", {}),
    "openai_completions": Example("sport", {"accuracy": 0.996}, "/openai/v1"),
    "openai_chat": Example("intents/train.csv", {"accuracy": 0.68, "f1_weighted": 0.62}, "/openai/v1"),
}


def run(name: str, url: str, data: Path, rows: int | None) -> dict[str, Any]:
    """Run one example; gives its record."""
    example, work = EXAMPLES[name], ROOT / "runs" / "examples" / name
    settings = {"BASE_URL": url + example.path, "DATA": str(data / example.data), "WORK": str(work)}
    settings["ROWS"] = str(rows or 0)
    say(f"\n$ {' '.join(f'{key}={value}' for key, value in settings.items())} python examples/{name}.py")
    began = time.monotonic()
    command = [sys.executable, "-u", str(ROOT / "examples" / f"{name}.py")]
    if subprocess.run(command, cwd=ROOT, env=os.environ | settings).returncode:
        sys.exit(f"examples/{name}.py failed; its last lines are above")
    figures = json.loads((work / "figures.json").read_text())
    return {"example": name, "rows": rows, "figures": figures, "seconds": round(time.monotonic() - began)}


def add(new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put records into the file, in place of those of the same examples, and give all of them."""
    old = json.loads(STORE.read_text()) if STORE.exists() else []
    found = {record["example"]: record for record in [*old, *new]}
    records = [found[name] for name in EXAMPLES if name in found]
    STORE.write_text(json.dumps(records, indent=1) + "\n")
    return records


def table(records: list[dict[str, Any]]) -> str:
    """Figures beside the hosted ones, as Markdown."""
    lines = ["| example | rows | figure | here | hosted | seconds |", "| --- " * 6 + "|"]
    for record in records:
        name, rows = record["example"], record["rows"] or "all"
        for figure, value in record["figures"].items():
            hosted = "" if record["rows"] else EXAMPLES[name].hosted.get(figure, "")  # of all rows
            lines.append(f"| `examples/{name}.py` | {rows} | {figure} | {value:.4f} | {hosted} | {record['seconds']} |")
    return "\n".join(lines)


def ask() -> argparse.Namespace:
    """What to run, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", nargs="*", metavar="NAME", help=f"of {', '.join(EXAMPLES)}; by default all")
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per data set")
    parser.add_argument("--rows", type=int, help="limit of the rows of each file, for a quick look")
    options = parser.parse_args()
    options.examples = options.examples or list(EXAMPLES)
    if unknown := set(options.examples) - set(EXAMPLES):
        parser.error(f"there is no example {', '.join(sorted(unknown))}; there are {', '.join(EXAMPLES)}")
    missing = [
        path for name in options.examples if not (path := options.data.absolute() / EXAMPLES[name].data).exists()
    ]
    if missing:
        lines = "".join(f"\n  {path}" for path in missing)
        parser.error(f"not found, see docs/examples.md for where the data are from:{lines}")
    return options


def main() -> None:
    """Run the examples one after the other, and write down what they found."""
    options = ask()
    with (
        tempfile.TemporaryDirectory(prefix="encore-examples-") as home,
        server(os.environ | {"ENCORE_HOME": home, "BENTOML_HOME": f"{home}/bentoml"}) as url,
    ):
        records = list[dict[str, Any]]()
        for name in options.examples:
            records.append(run(name, url, options.data.absolute(), options.rows))
            include(table(add(records)), PAGE, "workflows")
    say("\n" + table(records))


if __name__ == "__main__":
    main()
