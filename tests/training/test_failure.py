"""A full disk, full memory, a folder that may not be written: one line each, and the run goes on when it can."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from tests.training.conftest import WriteRows, topic_rows
from tests.training.test_resume import ROOT, results, train_command
from training.atomic import replace_folder
from training.failure import explain

LIMITED = """
import resource, sys
from training.train import main
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in [*map(int, sys.argv[1].split(",")), hard]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    sys.stdout.write(f"status {main(sys.argv[2:])}\\n")
"""
SMALL = """
import resource, sys
import psutil
import training.run
from training.train import main
limit = psutil.Process().memory_info().vms + 600 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(sys.argv[1:]))
"""


def wrapped(inner: Exception) -> Exception:
    """An error raised while another was handled."""
    try:
        try:
            raise inner
        except Exception:
            raise ValueError("Could not save") from None
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "runs/x/metrics.csv"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 129088 vs 128980"),
        Exception("No space left on device (os error 28)"),  # tokenizers
        wrapped(OSError(errno.ENOSPC, "No space left on device")),
    ],
    ids=repr,
)
def test_a_full_disk_in_whatever_words(error: Exception) -> None:
    found = str(explain(error))
    assert found.startswith("the disk is full, or a file may not grow (")
    assert found.endswith("; make room, and the same command goes on from the last saved state")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=repr,
)
def test_full_memory_in_whatever_words(error: Exception) -> None:
    assert str(explain(error)) == "out of memory; lower max_batch_tokens or max_length"


@pytest.mark.parametrize(
    "error",
    [ValueError("no space left"), KeyError("out of memory"), RuntimeError("shape mismatch"), FileNotFoundError(2, "x")],
    ids=repr,
)
def test_a_bug_stays_one(error: Exception) -> None:
    assert explain(error) is None


def test_a_folder_that_may_not_be_written() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/srv/run")
    assert str(explain(error)).startswith("/srv/run: permission denied; give the command access to it")


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_point(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    """By the size that files may have: the settings do not fit, then one part of the state after the other."""
    file, flags = rows_file(topic_rows(60)), ("--epochs", "2", "--keep_epochs", "1")
    whole, broken = (train_command(base, file, tmp_path / name, *flags) for name in ("whole", "broken"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    limits = "100,1500,20000,60000,90000,130000"
    limited = [sys.executable, "-c", LIMITED, limits, *broken[broken.index("training.train") + 1 :]]
    done = subprocess.run(limited, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert re.findall(r"^status (\d)$", done.stdout, re.MULTILINE) == ["1"] * 6 + ["0"], said
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 6 and all(line.startswith("error: the disk is full, or a file may not") for line in errors)
    assert "Traceback" not in said
    subprocess.run(whole, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert results(tmp_path / "broken") == results(tmp_path / "whole")


@pytest.mark.slow
def test_a_step_that_does_not_fit_in_memory(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    """All rows in one pass need some 2 GB; what was loaded before may have 600 MB more."""
    long = [{**row, "text": f"{row['text']} " * 16} for row in topic_rows(3_000)]
    flags = ("--epochs", "1", "--batch_size", "3000", "--max_batch_tokens", "1000000", "--precision", "float32")
    command = train_command(base, rows_file(long), tmp_path / "run", *flags)
    small = [sys.executable, "-c", SMALL, *command[command.index("training.train") + 1 :]]
    # threads and their arenas would take a share that depends on the machine
    alone = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(small, cwd=ROOT, env=os.environ | alone, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: out of memory; lower max_batch_tokens or max_length"
    assert "Traceback" not in done.stderr


def test_what_a_full_disk_left_does_not_fill_it(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        (path / "weights").write_text(json.dumps([0] * 100))
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError):
        replace_folder(tmp_path / "best-0", fail)
    assert list(tmp_path.iterdir()) == []
