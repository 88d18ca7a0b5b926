"""The notebooks in `examples/` run to the end against a live server, on a part of their data and with a tiny base."""

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.serving.live import ROOT, serve
from tests.tiny import make_base

SHARED = ROOT.parent / "shared" / "data"
ROWS = {"cohere_classify": 100, "cohere_rerank": 40, "openai_completions": 60, "openai_chat": 80}
PATHS = {"cohere": "", "openai": "/openai/v1"}
PLOTS = {
    "cohere_classify": {"loss.png", "confusion.png"},
    "cohere_rerank": {"before_and_after.png"},
    "openai_completions": {"accuracy.png"},
    "openai_chat": {"loss.png", "surest.png"},
}
FIGURES = {
    "cohere_classify": r"Accuracy: [\d.]+\nF1-score: [\d.]+\n",
    "cohere_rerank": r"accuracy@1: [\d.]+ before, [\d.]+ after\nmrr@10: [\d.]+ before, [\d.]+ after\n",
    "openai_completions": r"accuracy: [\d.]+\nf1_weighted: [\d.]+\naccuracy, later posts: [\d.]+\nf1_weighted.*\n",
    "openai_chat": r"accuracy: [\d.]+\nweighted F1: [\d.]+\n",
}


def write_table(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def made_data(folder: Path) -> dict[str, Path]:
    """Files of the forms the notebooks read, from the sample tickets: the next of a label is what is relevant."""
    tickets = list(csv.reader((ROOT / "examples/support/train.csv").open(newline="", encoding="utf-8")))[1:]
    posts = [{"prompt": text, "completion": label} for text, label in tickets if label in ("billing", "shipping")]
    for name, part in (("sport2", posts[:80]), ("test", posts[80:])):
        write_lines(folder / f"{name}.jsonl", part)
    queries = folder / "queries"
    queries.mkdir()
    ranked = list[dict[str, Any]]()
    for i, (query, label) in enumerate(tickets):
        others = [text for text, other in tickets[i + 1 :] + tickets[:i] if other != label][:4]
        relevant = next(text for text, other in tickets[i + 1 :] + tickets[:i] if other == label)
        ranked.append({"query": query, "docs": [*others[:2], relevant, *others[2:]], "label": 2})
    for name, part in (("train", ranked[:260]), ("valid", ranked[260:340]), ("test", ranked[340:])):
        write_lines(queries / f"{name}.jsonl", part)
    numbered = [[str(i), *ticket] for i, ticket in enumerate(tickets)]
    return {
        "cohere_classify": write_table(folder / "queries.csv", tickets),
        "cohere_rerank": queries,
        "openai_completions": folder,
        "openai_chat": write_table(folder / "intents.csv", [["id", "text", "label_text"], *numbered]),
    }


def real_data(folder: Path) -> dict[str, Path]:
    """The public data; of the intents the commonest eight, as all 85 would want hundreds of rows."""
    with (SHARED / "intents/train.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    kept = {label for label, _ in Counter(label for *_, label in rows).most_common(8)}
    return {
        "cohere_classify": SHARED / "atis/atis_subset.csv",
        "cohere_rerank": SHARED / "casehold",
        "openai_completions": SHARED / "sport",
        "openai_chat": write_table(folder / "intents.csv", [head, *(row for row in rows if row[-1] in kept)]),
    }


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, Path]]:
    """All notebooks run at the same time against one server: their status, what they printed, and their folder."""
    home = tmp_path_factory.mktemp("home")
    base = make_base(home / "base")
    data = (real_data if SHARED.is_dir() else made_data)(tmp_path_factory.mktemp("data"))
    with serve(home, ENCORE_DEFAULT_BASE=str(base)) as live:
        running = dict[str, tuple[subprocess.Popen[str], Path]]()
        for name, rows in ROWS.items():
            settings = {
                "BASE_URL": live.url + PATHS[name.split("_")[0]],
                "DATA": str(data[name]),
                "ROWS": str(rows),
                "WORK": str(tmp_path_factory.mktemp(name)),
                "MPLBACKEND": "Agg",
            }
            running[name] = (
                subprocess.Popen(
                    [sys.executable, str(ROOT / f"examples/{name}.py")],
                    cwd=ROOT,
                    env=os.environ | settings,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                ),
                Path(settings["WORK"]),
            )
        try:
            said = {name: process.communicate(timeout=600)[0] for name, (process, _) in running.items()}
        finally:
            for process, _ in running.values():
                process.kill()
    return {name: (process.returncode, said[name], work) for name, (process, work) in running.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_notebook_runs_to_the_end(ended: dict[str, tuple[int, str, Path]], name: str) -> None:
    status, said, work = ended[name]
    assert status == 0, said
    assert re.search(FIGURES[name] + r"\Z", said), said
    figures = json.loads((work / "figures.json").read_text())
    assert figures and all(0 <= value <= 1 for value in figures.values())
    assert {path.name for path in work.glob("*.png")} == PLOTS[name]


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_the_address_is_all_that_is_not_as_hosted(name: str) -> None:
    """Neither imports of this project, nor an address but where the client is made."""
    text = (ROOT / f"examples/{name}.py").read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n# # ")
    assert not re.search(r"^\s*(import|from) (training|serving|scripts|tests)\b", text, re.MULTILINE)
    assert len(re.findall(r"\bBASE_URL\b", re.sub(r'"BASE_URL"', "", text))) == 2


def test_missing_data_are_named(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/examples.py"), "--data", str(tmp_path), "openai_chat"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "docs/examples.md" in done.stderr and str(tmp_path / "intents/train.csv") in done.stderr
