from pathlib import Path
from typing import Any

import pytest
import yaml

from training.config import LoraSettings, TrainConfig, load_config, parse_config, validate_config
from training.errors import ConfigError

GIVEN = ["--train_file", "rows.jsonl", "--output_dir", "runs/x"]
VALUES: dict[str, Any] = {"train_file": "rows.jsonl", "output_dir": "runs/x"}


def parse(tmp_path: Path, text: str, *flags: str) -> TrainConfig:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return parse_config([*GIVEN, "--config", str(path), *flags])


def refusal(*flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config([*GIVEN, *flags])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_two_required_flags_are_enough() -> None:
    config = parse_config(GIVEN)
    assert config == TrainConfig(train_file="rows.jsonl", output_dir="runs/x")
    assert (config.lora, config.epochs, config.task) == (None, "auto", "classify")


def test_file_and_flags_are_merged(tmp_path: Path) -> None:
    text = "epochs: 4\nlearning_rate: 1e-3\ndata:\n  label_column: intent\n"
    config = parse(tmp_path, text, "--epochs", "7", "--data.text_column", "utterance", "--seed=5")
    assert (config.epochs, config.learning_rate, config.seed) == (7, 0.001, 5)
    assert (config.data.text_column, config.data.label_column) == ("utterance", "intent")


@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"]])
def test_flags_win_wherever_they_stand(tmp_path: Path, form: list[str]) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("epochs: 4\nlora:\n  r: 4\n")
    config = parse_config(["--epochs", "7", "--lora.r", "9", *(part.format(path) for part in form), *GIVEN])
    assert config.epochs == 7
    assert config.lora == LoraSettings(r=9)


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("", [], None),
        ("lora: {}", [], LoraSettings()),
        ("lora: null", [], None),
        ("lora:\n  r: 4", [], LoraSettings(r=4)),
        ("lora:\n  r: 4", ["--lora.lora_alpha", "8"], LoraSettings(r=4, lora_alpha=8)),
        ("", ["--lora.r", "4"], LoraSettings(r=4)),
        ("lora:\n  r: 4", ["--lora", "null"], None),
        ("lora:\n  target_modules: [query, value]", [], LoraSettings(target_modules=["query", "value"])),
    ],
)
def test_lora_is_a_section(tmp_path: Path, text: str, flags: list[str], expected: LoraSettings | None) -> None:
    assert parse(tmp_path, f"task: classify\n{text}\n", *flags).lora == expected


def test_a_field_may_be_auto_or_a_number(tmp_path: Path) -> None:
    config = parse(tmp_path, "epochs: auto\nbatch_size: 8\nmax_length: 64\n", "--learning_rate", "auto")
    assert (config.epochs, config.batch_size, config.max_length, config.learning_rate) == ("auto", 8, 64, "auto")


def test_null_takes_a_limit_away(tmp_path: Path) -> None:
    assert parse(tmp_path, "early_stopping_patience: null\n").early_stopping_patience is None
    assert parse_config([*GIVEN, "--early_stopping_patience", "null"]).early_stopping_patience is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learnig_rate", "3"], "--learnig_rate"),
        (["--lora.rank", "3"], "lora.rank: unknown setting"),
        (["--data.textcolumn", "3"], "--data.textcolumn"),
        (["stray"], "stray"),
        (["--epoch", "3"], "--epoch"),  # no abbreviations: a new setting must not change what an old command means
        (["--weight_decay", "-1"], "weight_decay: Input should be greater than or equal to 0, not -1"),
        (["--lora.r", "0"], "lora.r: Input should be greater than 0, not 0"),
        (["--seed", "abc"], "seed: Input should be a valid integer"),
        (["--epochs", "0"], "epochs must be auto or greater than 0, not 0"),
        (["--epochs", "1.5"], "epochs: expected 'auto' or a whole number, not 1.5"),
        (["--learning_rate", "fast"], "learning_rate: expected 'auto' or a number, not fast"),
        (["--learning_rate", "nan"], "learning_rate: expected 'auto' or a number, not nan"),
        (["--schedule", "up"], "schedule: expected 'linear', 'cosine', 'constant', not up"),
        (["--lora", "yes"], "lora: expected settings of its own"),
        (["--eval_fraction", "0.5", "--test_fraction", "0.5"], "eval_fraction and test_fraction leave no rows"),
        (["--label_smoothing", "0.1", "--problem", "multi_label"], "label_smoothing is for single-label"),
        (["--data.delimiter", ";;"], 'data.delimiter: delimiter is \';;\', expected one character such as "," or ";"'),
        (["--config", "/nowhere/x.yaml"], "/nowhere/x.yaml"),
        (["--config"], "--config"),
        (["--seed"], "--seed"),
    ],
)
def test_a_wrong_flag_is_named_in_one_line(flags: list[str], said: str) -> None:
    assert said in refusal(*flags)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learnig_rate: 3", "learnig_rate: unknown setting"),
        ("lora:\n  rank: 3", "lora.rank: unknown setting"),
        ("data:\n  textcolumn: x", "data.textcolumn: unknown setting"),
        ("weight_decay: -1", "weight_decay: Input should be greater than or equal to 0, not -1"),
        ("epochs: many", "epochs: expected 'auto' or a whole number, not many"),
        ("epochs: null", "epochs: Input should be 'auto' or a valid integer, not None"),
        ("base_model: [a]", "base_model: expected text, not ['a']"),
        ("data: null", "data: "),
        ("lora: true", "lora: expected settings of its own"),
        ("early_stopping_patience: 0", "early_stopping_patience: "),
        ("learning_rate: .inf", "learning_rate: "),
        ("epochs: [\n", "config"),
        ("- 1\n- 2", "--config: expected a YAML file"),
    ],
)
def test_a_wrong_line_of_the_file_is_named_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(f"{text}\n")
    message = refusal("--config", str(path))
    assert said in message
    assert "class" not in message and "Union" not in message


def test_required_settings_that_are_missing_are_named() -> None:
    with pytest.raises(ConfigError, match="train_file, output_dir"):
        parse_config([])
    with pytest.raises(ConfigError, match="train_file: missing"):
        validate_config({"output_dir": "x"})


def test_help_lists_every_setting_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_config(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in TrainConfig.model_fields)
    assert "Passes over the training rows" in text and "--lora" in text and "--data.text_column" in text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lora": {"r": 4, "target_modules": ["query"]}, "learning_rate": 3e-5, "early_stopping_patience": None},
        {"train_file": "Größe : #1.jsonl", "data": {"delimiter": "\t", "text_column": "1", "label_separator": "|"}},
    ],
)
def test_what_is_written_reads_back_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = validate_config(VALUES | changes)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(path) == config
    assert parse_config(["--config", str(path)]) == config
    assert set(yaml.safe_load(config.to_yaml())) == set(TrainConfig.model_fields)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"a: [", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", "config.yaml: "),
        (b"train_file: a\noutput_dir: b\nnope: 1\n", "config.yaml: nope: unknown setting"),
    ],
)
def test_a_stored_config_that_is_broken_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": "many"}, "epochs: Input should be 'auto' or a valid integer"),
        ({"lora": {"r": 0}}, "lora.r: Input should be greater than 0, not 0"),
        ({"lora": {"target_modules": 3}}, "lora.target_modules: Input should be 'auto' or a valid list, not 3"),
        ({"nope": 1}, "nope: unknown setting"),
        ({"max_length": -3}, "max_length must be auto or greater than 0, not -3"),
    ],
)
def test_plain_values_are_checked_alike(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config(VALUES | change)
    assert str(caught.value).startswith(said)


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_config(GIVEN).seed = 3  # type: ignore[misc]
