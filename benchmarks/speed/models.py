"""The models that are scored with: trained once for a moment, so that their rankings mean something, and kept."""

import shutil
from pathlib import Path

from benchmarks.speed import data
from benchmarks.speed.harness import Options, say
from benchmarks.speed.places import base, own_worker, peer_worker

_QUERIES = 857
"""To learn from, one epoch: all of wikiqa, since a cross-encoder's head begins at random."""
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def classifier(options: Options, *flags: str, name: str = "classifier") -> Path:
    """A checkpoint that sorts short texts; `flags` are further ones of the command."""
    files = data.classify_sets(options)[0]
    return _trained(
        options,
        name,
        *("--config", "configs/classify/minilm.yaml", "--epochs", "1"),
        *("--train_file", str(files.train), "--eval_file", str(files.valid), *flags),
    )


def reranker(options: Options) -> Path:
    """A checkpoint in which query and document see each other in every layer, as a cross-encoder's do."""
    _, train, held = data.learning(options, options.scaled(_QUERIES))
    return _trained(
        options,
        "reranker",
        *("--config", "configs/rerank/minilm.yaml", "--cross_layers", "null", "--epochs", "1"),
        *("--train_file", str(train), "--eval_file", str(held)),
    )


def cross_encoder(options: Options) -> Path:
    """The same by sentence-transformers, in the form that every peer reads."""
    folder = options.work / "cross-encoder"
    if not folder.exists():
        _, train, _ = data.learning(options, options.scaled(_QUERIES))
        say(f"training {folder}")
        with peer_worker(options, "setfit", "cross_encoder_trainer", str(base())) as worker:
            worker.ask("train", train=str(train), batch=8, steps=-1, bf16=True, folder=str(folder))
        # Older versions of the library do not know what newer ones write of a tokenizer.
        for part in _TOKENIZER:
            shutil.copy(base() / part, folder / part)
    return folder


def onnx(options: Options) -> Path:
    """That again, for peers that want it as ONNX; sentence-transformers exports it."""
    folder, work = cross_encoder(options), options.work.absolute()
    with peer_worker(options, "st", "scoring", str(folder), str(work), "onnx") as worker:
        worker.ask("prepare")
    return options.work / f"{folder.name}-onnx"


def _trained(options: Options, name: str, *flags: str) -> Path:
    folder = options.work / name
    if not (folder / "checkpoint").is_dir():
        say(f"training {folder}")
        with own_worker(options, "trainer") as worker:
            worker.ask("train", flags=[*flags, "--output_dir", str(folder)])
    return folder / "checkpoint"
