"""The settings files that come with the project."""

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from training.config import parse_config

ROOT = Path(__file__).parents[2]
LAUNCH = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
RUNS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path not in LAUNCH)


def test_all_files_are_seen() -> None:
    assert len(RUNS) == 10
    assert len(LAUNCH) == 6


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_config_opens_with_the_command_that_runs_it(path: Path) -> None:
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    command = re.fullmatch(r"# accelerate launch -m training\.train (.*)", first)
    assert command and second == ""
    flags = command[1].split()
    assert flags[:2] == ["--config", path.relative_to(ROOT).as_posix()]
    config = parse_config(["--config", str(path), *flags[2:]])
    assert (config.train_file, config.output_dir) == ("F", "runs/NAME")
    assert config.task == path.parent.name


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.stem)
def test_a_launch_config_is_one_that_accelerate_reads(path: Path) -> None:
    command = f"accelerate launch --config_file {path.relative_to(ROOT).as_posix()} "
    heading = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(line.startswith(f"# {command}") and " -m training.train " in line for line in heading)
    assert load_config_from_file(str(path)).compute_environment.value == "LOCAL_MACHINE"


def test_launch_and_run_settings_do_not_mix() -> None:
    for path in LAUNCH:
        assert not re.search(r"^(base_model|train_file|epochs|lora|learning_rate):", path.read_text(), re.MULTILINE)
