"""Settings come from the environment; a bad one is one clear line, wherever it is read."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.auth import bearer_token, hash_key, is_known
from serving.settings import Settings, load_settings
from tests.serving.live import BENTOML, ROOT, environment
from training.errors import ConfigError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ENCORE_{name.upper()}", raising=False)


def test_defaults() -> None:
    settings = load_settings()
    assert settings.home == Path.home() / ".encore"
    assert settings.api_keys == () and settings.max_body == 8 * 2**20 and settings.cpu_threads >= 1
    assert settings.database == f"sqlite:///{settings.home}/encore.db"


def test_strangers_with_our_prefix_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENCORE_PORT", "ENCORE_SERVICE_HOST", "ENCORE_PORT_3000_TCP_ADDR"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:3000")
    assert load_settings().api_keys == ()


def test_values(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = hash_key("two")
    monkeypatch.setenv("ENCORE_API_KEYS", f" one , {hashed},")
    monkeypatch.setenv("ENCORE_MAX_BODY", "2MiB")
    monkeypatch.setenv("ENCORE_DATABASE_URL", "postgresql://u:password@h/d")
    settings = load_settings()
    assert settings.api_keys == (hash_key("one"), hashed) and settings.max_body == 2 * 2**20
    shown = repr(settings)
    assert "password" not in shown and hashed not in shown and "one" not in shown.replace("None", "")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MAX_BODY", "big", "ENCORE_MAX_BODY=big: "),
        ("REQUEST_TIMEOUT", "-1", "ENCORE_REQUEST_TIMEOUT=-1: input should be greater than 0"),
        ("DEVICE", "tpu", "ENCORE_DEVICE=tpu: input should be 'auto', 'cpu', 'cuda' or 'mps'"),
        ("CPU_THREADS", "0", "ENCORE_CPU_THREADS=0: "),
        ("API_KEYS", " , ", "ENCORE_API_KEYS: no key in it"),
        ("APIKEYS", "one", "ENCORE_APIKEYS is not a setting; did you mean ENCORE_API_KEYS?"),
    ],
)
def test_mistakes(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(f"ENCORE_{name}", value)
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_the_server_says_so_and_does_not_start(tmp_path: Path) -> None:
    made = environment(tmp_path, ENCORE_MAX_BODY="big")
    done = subprocess.run(
        [BENTOML, "serve", "--port", "0"], cwd=ROOT, env=made, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().startswith("ENCORE_MAX_BODY=big: ") and len(done.stderr.strip().splitlines()) == 1


def test_keys() -> None:
    assert hash_key("k").startswith("sha256:") and hash_key(hash_key("k")) == hash_key("k")
    assert is_known("b", [hash_key("a"), hash_key("b")]) and not is_known("c", [hash_key("a")])
    tokens: dict[str | None, Any] = {None: None, "": None, "Bearer": None, "bearer  x ": "x", "Basic x": None}
    assert {header: bearer_token(header) for header in tokens} == tokens


def test_the_key_command_prints_a_key_and_its_hash() -> None:
    done = subprocess.run([sys.executable, "-m", "serving.auth"], cwd=ROOT, capture_output=True, text=True, check=True)
    key, hashed = (line.split()[-1] for line in done.stdout.splitlines())
    assert hash_key(key) == hashed and len(key) >= 40


def test_the_application_imports_neither_torch_nor_transformers() -> None:
    heavy = "{'torch', 'transformers', 'sklearn', 'datasets'}"
    script = f"import sys, serving.app, serving.service; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
