"""Networks in OpenVINO answer as they do in torch, without torch being there."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import logging as transformers_logging

from tests.tiny import make_base
from tests.training.conftest import topic_queries, topic_rows
from training.config import LoraSettings, NegativesSettings, TrainConfig
from training.engine import EXPORT_FOLDER, Engine, Ranking, exports, openvino_export
from training.errors import ModelError
from training.run import run

TEXTS = ["where is my parcel", "refund", "the screen is slow and stuck and slow " * 12]


def train(base: Path, folder: Path, **changes: Any) -> Path:
    task = changes.get("task", "classify")
    rows = topic_rows(24) if task == "classify" else topic_queries(20, others=3)
    file = folder / "train.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"train_file": str(file), "output_dir": str(folder / "run"), "base_model": str(base), "epochs": 1}
    return run(TrainConfig(**settings | {"learning_rate": 1e-2} | changes))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def answers(checkpoint: Path, **how: Any) -> Any:
    engine = Engine.load(checkpoint, device="cpu", **how)
    return engine.score(engine.encode(TEXTS))


def test_an_embedder_is_run_by_openvino(base: Path) -> None:
    engine = Engine.load_embedder(str(base), device="cpu", precision="float32")
    assert engine.backend.name == "openvino"
    exact = Engine.load_embedder(str(base), device="cpu", precision="float32", backend="torch")
    assert exact.backend.name == "torch"
    items = engine.encode(TEXTS)
    np.testing.assert_allclose(engine.score(items), exact.score(items), atol=1e-4)


def test_a_trained_checkpoint_brings_its_graph(base: Path, tmp_path: Path) -> None:
    checkpoint = train(base, tmp_path)
    assert (checkpoint / EXPORT_FOLDER / exports.BACKBONE).is_file()
    assert exports.find(checkpoint, "checkpoint") == checkpoint / EXPORT_FOLDER
    exact = answers(checkpoint, backend="torch", precision="float32")
    np.testing.assert_allclose(answers(checkpoint, precision="float32"), exact, atol=1e-4)
    np.testing.assert_allclose(answers(checkpoint), exact, atol=0.05)


@pytest.mark.parametrize("cross_layers", [0, 1, None])
def test_pairs_rank_alike(base: Path, tmp_path: Path, cross_layers: int | None) -> None:
    mining = NegativesSettings(mining="none")
    checkpoint = train(base, tmp_path, task="rerank", cross_layers=cross_layers, negatives=mining)
    engine = Engine.load(checkpoint, device="cpu", precision="float32")
    exact = Engine.load(checkpoint, device="cpu", precision="float32", backend="torch")
    plan = Ranking.plan(engine.encoder, engine.manifest, "please track the order", TEXTS)
    assert (engine.backend.name, exact.backend.name) == ("openvino", "torch")
    np.testing.assert_allclose(engine.score(plan.items), exact.score(plan.items), atol=1e-3)


def test_adapters_share_the_graph_of_their_base(base: Path, tmp_path: Path) -> None:
    found: list[Engine] = []
    for number, rank in enumerate((2, 4)):
        checkpoint = train(base, tmp_path / str(number), lora=LoraSettings(r=rank), seed=number)
        engine = Engine.load(checkpoint, device="cpu", precision="float32")
        assert engine.backend.name == "openvino"
        exact = answers(checkpoint, backend="torch", precision="float32")
        np.testing.assert_allclose(engine.score(engine.encode(TEXTS)), exact, atol=2e-3)
        assert not (checkpoint / EXPORT_FOLDER / exports.BACKBONE).exists()
        found.append(engine)
    weights = Engine.load_embedder(str(base), device="cpu", precision="float32").nbytes
    assert found[0].nbytes < found[1].nbytes < weights / 4
    first, second = (engine.score(engine.encode(TEXTS)) for engine in found)
    assert np.abs(first - second).max() > 1e-3  # each with its own adapter, also in turns


def test_adapters_of_another_kind_are_merged(base: Path, tmp_path: Path) -> None:
    checkpoint = train(base, tmp_path, lora=LoraSettings(r=2, use_dora=True))
    assert (checkpoint / EXPORT_FOLDER / exports.BACKBONE).is_file()
    exact = answers(checkpoint, backend="torch", precision="float32")
    np.testing.assert_allclose(answers(checkpoint, precision="float32"), exact, atol=1e-4)


def test_an_adapter_is_refused_on_changed_weights(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    checkpoint = train(base, tmp_path / "tuned", lora=LoraSettings(r=2))
    make_base(base, seed=1)
    with pytest.raises(ModelError, match="whose weights have changed since"):
        Engine.load(checkpoint, device="cpu")


def test_a_graph_that_answers_otherwise_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_base(tmp_path / "base")
    monkeypatch.setattr(openvino_export, "_TOLERANCE", 0.0)
    assert Engine.load_embedder(str(base), device="cpu").backend.name == "torch"
    with pytest.raises(ModelError, match=r"cannot be run by OpenVINO \(its answers are .* away"):
        Engine.load_embedder(str(base), device="cpu", backend="openvino")


def test_a_graph_that_is_right_in_float32_only_is_run_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_base(tmp_path / "base")
    monkeypatch.setattr(openvino_export, "_TOLERANCE", 1e-6)
    engine = Engine.load_embedder(str(base), device="cpu")
    assert (engine.backend.name, engine.backend.precision) == ("openvino", "float32")


def test_torch_stays_out_of_the_process_that_scores(base: Path) -> None:
    code = (
        "import sys; from training.engine import Engine; e = Engine.load_embedder(sys.argv[1], device='cpu');"
        "print(e.score(e.encode(['hello'])).shape, e.backend.name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(base)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 32) openvino False"


def test_a_base_that_cannot_be_loaded_says_why_without_torch(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    (base / "model.safetensors").write_bytes(b"broken")
    code = "import sys; from training.engine import Engine; Engine.load_embedder(sys.argv[1], device='cpu')"
    done = subprocess.run([sys.executable, "-c", code, str(base)], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1].startswith(f"training.errors.ModelError: {base} cannot be loaded")


def test_what_was_made_of_a_source_goes_with_it(base: Path, tmp_path: Path) -> None:
    gone, other = make_base(tmp_path / "gone"), make_base(tmp_path / "other", seed=3)
    made = exports.find(gone, "embedder")
    assert made == exports.find(gone, "embedder") and made.parent == exports.cache_folder()
    shutil.rmtree(gone)
    exports.find(other, "embedder")
    assert not made.exists()


def test_without_room_for_graphs_torch_runs_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_base(tmp_path / "base")
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Engine.load_embedder(str(base), device="cpu").backend.name == "torch"


def test_new_weights_make_a_new_graph(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    first = exports.find(base, "embedder")
    make_base(base, seed=1)
    assert exports.find(base, "embedder") != first


def test_a_conversion_that_fails_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> Any:
            return torch.linalg.eigvals(ids.float())  # which OpenVINO does not have

    before = logging.getLogger().level, transformers_logging.get_verbosity()
    with pytest.raises(Exception, match="eig"):
        openvino_export._save(Odd(), {"ids": torch.eye(3)}, tmp_path / "odd.xml")
    assert (logging.getLogger().level, transformers_logging.get_verbosity()) == before
