"""Models are added and removed whole or not at all, also when a process dies in between."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from serving.database import models, open_database
from serving.registry import Registry
from tests.serving.live import ROOT, open_home
from training.errors import ConfigError, ModelError

Command = Callable[..., subprocess.CompletedProcess[str]]


def reopen(registry: Registry) -> Registry:
    return open_home(registry.folder("x").parents[1])


def test_add_find_remove(registry: Registry, checkpoint: Path) -> None:
    first = registry.add(checkpoint, "desk")
    second = registry.add(checkpoint.parent)  # a run folder
    assert (first.name, first.labels, first.max_length, second.name) == ("desk", 3, 32, None)
    assert registry.list() == [first, second]
    for key in ("desk", first.id, first.public_name, first.id.upper()):
        assert registry.find(key) == first
    assert {path.name for path in registry.folder(first.id).iterdir()} == {path.name for path in checkpoint.iterdir()}
    assert registry.remove("desk") == first
    assert registry.list() == [second]
    assert all(registry.find(key) is None for key in ("desk", first.id, first.public_name))
    assert not registry.folder(first.id).exists()
    with pytest.raises(ModelError, match="there is no model desk"):
        registry.remove("desk")


def test_another_process_sees_changes_at_once(registry: Registry, checkpoint: Path) -> None:
    other = reopen(registry)
    assert other.find("desk") is None
    first = registry.add(checkpoint, "desk")
    assert other.find("desk") == first
    second = registry.add(checkpoint, "desk", replace=True)
    assert other.find("desk") == second and other.find(first.id) is None
    registry.remove("desk")
    assert other.find("desk") is None and other.list() == []


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/b", "../x", "a\\b", "-x", "a b", "x" * 257, "é", "a\n"),
        *("desk-ft", "12345678-1234-1234-1234-123456789abc", "ENGLISH".lower(), "rerank-v3.5", "large"),
    ],
)
def test_names_that_are_refused(registry: Registry, checkpoint: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be a model's name"):
        registry.add(checkpoint, name)
    assert registry.list() == []


def test_a_taken_name(registry: Registry, checkpoint: Path) -> None:
    first = registry.add(checkpoint, "desk")
    with pytest.raises(ModelError, match=f"belongs to model {first.id} already"):
        registry.add(checkpoint, "desk")
    assert registry.list() == [first]
    assert registry.add(checkpoint, "new", replace=True).name == "new"


def test_what_is_no_checkpoint(registry: Registry, tmp_path: Path) -> None:
    for source in (tmp_path / "missing", tmp_path):
        with pytest.raises(ModelError, match="is not a checkpoint"):
            registry.add(source)
    assert list(registry.folder("x").parent.iterdir()) == []


CRASHES = {
    "copying": "shutil.copytree = die",
    "before the rename": "registry.os.rename = die",
    "after the rename": "registry.Registry._publish = die",
    "before the old one goes": "registry.Registry._erase = die",
}


@pytest.mark.parametrize("when", CRASHES)
def test_a_crash_leaves_nothing_half_done(registry: Registry, checkpoint: Path, when: str) -> None:
    old = registry.add(checkpoint, "desk")
    home = registry.folder("x").parents[1]
    script = f"""
import os, shutil, sys
from pathlib import Path
from serving import registry
from serving.database import open_database
def die(*_, **__): os._exit(9)
own = registry.Registry(Path({str(home)!r}), open_database("sqlite:///{home}/encore.db"))
{CRASHES[when]}
own.add(Path({str(checkpoint)!r}), "desk", replace=True)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 9
    after = reopen(registry)
    published = when == "before the old one goes"
    found = after.find("desk")
    assert found is not None and (found.id != old.id) == published
    assert after.list() == [found]
    after.heal()
    assert after.list() == [found] and after.find("desk") == found
    assert [path.name for path in (home / "models").iterdir()] == [found.id]
    assert list((home / "tmp").iterdir()) == []


def test_readers_never_see_a_part_of_a_model(registry: Registry, checkpoint: Path) -> None:
    whole = {path.name for path in checkpoint.iterdir()}
    done = threading.Event()

    def read() -> int:
        reader, seen = reopen(registry), 0
        while not done.is_set():
            for model in reader.list():
                with contextlib.suppress(FileNotFoundError):
                    files = {path.name for path in reader.folder(model.id).iterdir()}
                    assert files == whole or reader.find(model.id) is None
                    seen += 1
        return seen

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for _ in range(12):
            registry.add(checkpoint, "desk", replace=True)
        registry.remove("desk")
        done.set()
        assert min(reader.result() for reader in readers) > 0


def test_healing_touches_nothing_else(registry: Registry, checkpoint: Path) -> None:
    model = registry.add(checkpoint, "desk")
    stranger = registry.folder("not-ours")
    stranger.mkdir()
    registry.heal()
    assert registry.list() == [model] and stranger.is_dir()


def test_commands(tmp_path: Path, checkpoint: Path, command: Command) -> None:
    home = tmp_path / "home"
    added = command(home, "add", checkpoint, "--name", "desk")
    lines = dict(line.split(maxsplit=1) for line in added.stdout.splitlines())
    assert lines["model:"] == f"{lines['id:']}-ft" and lines["name:"] == "desk"
    assert lines["model:"] in command(home, "list").stdout
    again = command(home, "add", checkpoint, "--name", "desk")
    assert again.returncode == 1 and len(again.stderr.splitlines()) == 1 and "already" in again.stderr
    assert command(home, "add", checkpoint, "--name", "desk", "--replace").returncode == 0
    assert command(home, "remove", "desk").returncode == 0
    missing = command(home, "remove", "desk")
    assert missing.returncode == 1 and missing.stderr.startswith("there is no model desk")


def test_what_kind_of_model_each_is(tmp_path: Path, checkpoint: Path, reranker: Path, command: Command) -> None:
    registry = open_home(tmp_path)
    ids = registry.add(checkpoint).public_name, registry.add(reranker, "search").public_name
    first, second = command(tmp_path, "list").stdout.splitlines()
    assert first.startswith(f"{ids[0]}  -  single-label  3 labels  ")
    assert second.startswith(f"{ids[1]}  search  rerank  ")


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    folder: Any = tmp_path / "folder.db"
    folder.mkdir()
    for url in (f"sqlite:///{folder}", "nonsense", "mystery://x", "postgresql+psycopg9://x"):
        with pytest.raises(ConfigError) as error:
            open_database(url)
        assert "\n" not in str(error.value)


def test_the_tables_suit_postgresql() -> None:
    statement = str(CreateTable(models, if_not_exists=True).compile(dialect=postgresql.dialect()))
    assert "CREATE TABLE IF NOT EXISTS models" in statement and "UNIQUE (name)" in statement
