import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.atomic import remove_folder, replace_folder, write_atomically
from training.config import TrainConfig
from training.errors import ConfigError, DataError, TrainingError
from training.run_folder import RunFolder, fingerprints

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from training.config import load_config
from training.run_folder import RunFolder
config = load_config(Path(sys.argv[1]))
with RunFolder(Path(config.output_dir)).claim(config):
    sys.stdout.write("held\\n")
    sys.stdout.flush()
    sys.stdin.read()
"""


def make_config(tmp_path: Path, **changes: Any) -> TrainConfig:
    rows = tmp_path / "rows.jsonl"
    if not rows.exists():
        rows.write_text('{"text": "a", "label": "b"}\n')
    return TrainConfig(train_file=str(rows), output_dir=str(tmp_path / "run"), **changes)


def claim(config: TrainConfig) -> RunFolder:
    """Take the folder and leave it again, as a run does that ends early."""
    folder = RunFolder(Path(config.output_dir))
    with folder.claim(config):
        return folder


def save_state(folder: RunFolder, step: int, best_epoch: int, text: str = "") -> None:
    staged = folder.state / f".step-{step}.part"
    staged.mkdir()
    (staged / "state").write_text(text)
    folder.save_state(step, staged, best_epoch)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_is_made_with_config_and_fingerprints(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    folder = claim(config)
    assert (folder.path / "config.yaml").read_text() == config.to_yaml()
    assert config.train_file in (folder.path / "run.json").read_text()
    assert not folder.finished
    assert folder.newest_state() is None


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    claim(make_config(tmp_path))


def test_the_same_config_goes_on_with_the_run(tmp_path: Path) -> None:
    folder = claim(make_config(tmp_path))
    before = content(folder.path)
    claim(make_config(tmp_path))
    assert content(folder.path) == before


def test_another_config_is_refused_and_the_field_named(tmp_path: Path) -> None:
    folder = claim(make_config(tmp_path, epochs=3))
    folder.events.write_text("{}\n")
    before = content(folder.path)
    with pytest.raises(ConfigError, match=r"holds another run \(epochs: 3 there, 4 here\)"):
        claim(make_config(tmp_path, epochs=4))
    assert content(folder.path) == before


def test_a_run_that_failed_before_it_saved_anything_may_be_mended(tmp_path: Path) -> None:
    claim(make_config(tmp_path, epochs=3))
    mended = make_config(tmp_path, epochs=4)
    folder = claim(mended)
    assert (folder.path / "config.yaml").read_text() == mended.to_yaml()


def test_a_run_folder_may_be_moved(tmp_path: Path) -> None:
    folder = claim(make_config(tmp_path))
    folder.path.rename(tmp_path / "moved")
    claim(make_config(tmp_path).model_copy(update={"output_dir": str(tmp_path / "moved")}))


def test_a_folder_with_other_things_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years")
    with pytest.raises(ConfigError, match="not empty and not a run folder"):
        claim(make_config(tmp_path))
    assert content(tmp_path / "run") == {"thesis.tex": b"years"}


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ConfigError, match="is a file; choose another"):
        claim(make_config(tmp_path))
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(
    "left", [[".lock"], [".lock", ".config.yaml.part"], [".lock", "config.yaml", ".run.json.part"]]
)
def test_a_run_killed_at_its_beginning_starts_again(tmp_path: Path, left: list[str]) -> None:
    config = make_config(tmp_path)
    folder = claim(config).path
    for path in folder.iterdir():
        if path.name not in left:
            path.unlink()
    for name in left:
        if name.endswith(".part"):
            (folder / name).write_text("ha")
    claim(config)
    assert (folder / "config.yaml").read_text() == config.to_yaml()
    assert (folder / "run.json").is_file()


@pytest.mark.parametrize("field", ["train_file", "eval_file", "test_file"])
def test_a_changed_input_file_is_refused(tmp_path: Path, field: str) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("one")
    config = make_config(tmp_path).model_copy(update={field: str(other)})
    claim(config).events.write_text("{}\n")
    other.write_text("two")
    with pytest.raises(DataError, match=r"other\.jsonl: the file has changed since this run began"):
        claim(config)


def test_input_files_that_cannot_be_read_leave_no_folder(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    for name, said in ((tmp_path / "missing.csv", "no such file"), (tmp_path, "this is a folder")):
        with pytest.raises(DataError, match=said) as caught:
            claim(config.model_copy(update={"test_file": str(name)}))
        assert str(caught.value).startswith(f"{name}: ")
    assert not (tmp_path / "run").exists()


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    stored = tmp_path / "stored.yaml"
    stored.write_text(config.to_yaml())
    line = [sys.executable, "-c", HOLD, str(stored)]
    with subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="is in use by a running training"):
            claim(config)
        other.kill()
        other.wait()
    claim(config)


def test_a_folder_is_free_again_after_an_error(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    folder = RunFolder(Path(config.output_dir))
    with pytest.raises(KeyError), folder.claim(config):
        raise KeyError
    claim(config)


def test_a_run_is_finished_when_metrics_and_checkpoint_are_there(tmp_path: Path) -> None:
    folder = claim(make_config(tmp_path))
    folder.checkpoint.mkdir()
    assert not folder.finished
    write_atomically(folder.metrics, "{}")
    assert folder.finished
    (folder.state / "step-3").mkdir(parents=True)
    folder.clean()
    assert not folder.state.exists()
    folder.clean()
    assert folder.finished


def test_the_newest_state_is_kept_with_the_best_epoch_alone(tmp_path: Path) -> None:
    folder = claim(make_config(tmp_path))
    for step, best in ((9, 0), (10, 1), (11, 1)):
        replace_folder(folder.state / f"best-{best}", lambda path: write_atomically(path / "weights", "w"))
        save_state(folder, step, best)
    (folder.state / ".step-12.part").mkdir()  # killed while writing
    assert folder.newest_state() == folder.state / "step-11"
    assert sorted(path.name for path in folder.state.iterdir()) == [".step-12.part", "best-1", "step-11"]


def test_a_step_may_be_saved_twice(tmp_path: Path) -> None:
    folder = claim(make_config(tmp_path))
    folder.state.mkdir()
    save_state(folder, 9, 0, "within the epoch")
    save_state(folder, 9, 0, "at its end")
    newest = folder.newest_state()
    assert newest and (newest / "state").read_text() == "at its end"
    save_state(folder, 10, 0, "next epoch")
    assert [path.name for path in folder.state.iterdir()] == ["step-10"]


def test_a_kill_while_old_states_go_leaves_the_newest_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path) -> None:
        (path / "state").unlink()
        raise KeyboardInterrupt

    folder = claim(make_config(tmp_path))
    folder.state.mkdir()
    save_state(folder, 9, 0, "within the epoch")
    monkeypatch.setattr("training.run_folder.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(folder, 9, 0, "at its end")
    newest = folder.newest_state()
    assert newest and (newest / "state").read_text() == "at its end"


def test_a_folder_that_fails_to_fill_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "best-0"
    replace_folder(target, lambda path: write_atomically(path / "weights", "old"))

    def fail(path: Path) -> None:
        (path / "weights").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_folder(target, fail)
    assert content(target) == {"weights": b"old"}
    replace_folder(target, lambda path: write_atomically(path / "other", "new"))
    assert content(target) == {"other": b"new"}


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    before = fingerprints(config)
    assert fingerprints(config) == before
    Path(config.train_file).write_text("more")
    assert fingerprints(config) != before


def test_half_a_state_is_cleared_away_when_the_run_goes_on(tmp_path: Path) -> None:
    folder = claim(make_config(tmp_path))
    folder.events.write_text("{}\n")
    for name in (".step-12.part", ".best-1.part", "step-11"):
        (folder.state / name).mkdir(parents=True)
    claim(make_config(tmp_path))
    assert [path.name for path in folder.state.iterdir()] == ["step-11"]


def test_encoded_rows_stay_until_the_end_and_are_no_reason_to_refuse_a_mended_run(tmp_path: Path) -> None:
    folder = claim(make_config(tmp_path, epochs=3))
    kept, half = folder.tokens("train"), folder.tokens("train").with_name(".train.arrow.77.part")
    kept.parent.mkdir()
    kept.write_text("tokens")
    half.write_text("tok")
    claim(make_config(tmp_path, epochs=4))
    assert kept.exists()
    assert not half.exists()
    folder.clean()
    assert not kept.parent.exists()


def test_the_last_epochs_are_kept_and_nothing_half_written(tmp_path: Path) -> None:
    folder = claim(make_config(tmp_path))
    for step in (9, 18, 27, 100):
        folder.epoch(step).mkdir(parents=True)
    for name in (".step-27.part", ".step-9.old"):  # of kills
        (folder.epochs / name).mkdir()
        (folder.epochs / name / "weights").write_text("half")
    folder.keep_epochs(2)
    assert sorted(path.name for path in folder.epochs.iterdir()) == ["step-100", "step-27"]


def test_a_folder_goes_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, **_: Any) -> None:
        if path.exists():
            raise KeyboardInterrupt

    target = tmp_path / "step-9"
    target.mkdir()
    monkeypatch.setattr("training.atomic.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(target)
    assert [path.name for path in tmp_path.iterdir()] == [".step-9.old"]
