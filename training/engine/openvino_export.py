"""From a checkpoint or base to the graphs that OpenVINO runs."""

import json
import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from training.atomic import replace_folder
from training.base import hash_weights
from training.calibration import Floats, probabilities, relevance
from training.checkpoint import Checkpoint, load_base, load_checkpoint, load_embedder
from training.engine import exports
from training.engine.encoding import Encoded, Encoder
from training.engine.exports import Adapted, Export, Kind, Reading
from training.engine.lora import reading_of
from training.engine.openvino_backend import load
from training.engine.torch_backend import TorchBackend
from training.errors import EncoreError
from training.manifest import Manifest
from training.network import Network, PairHead

_TOLERANCE = 0.01
"""How far probabilities, or parts of a vector of length one, may be from torch's in float32."""
_PROBES = (
    "hello",
    "My card was charged twice for the same order; please refund one of them.",
    "The parcel has not come. " * 12,
    "show me the flights from boston to denver on tuesday morning",
    "Where can I see which invoices are still open, and who has to pay them? " * 3,
)
"""Texts on which a graph is compared with the network it was made of."""
_EXAMPLE = {
    "ids": torch.ones(2, 7, dtype=torch.long),
    "mask": torch.ones(2, 7, dtype=torch.long),
    "split": torch.full((2,), 3),
}


def carry_out(order: str, target: Path) -> None:
    """Make the export that an order of `exports.find` describes; errors as there."""
    said = json.loads(order)
    reading = said["reading"] and Reading.model_validate(said["reading"])
    write(Path(said["source"]), said["kind"], reading, target)


def write(source: Path, kind: Kind, reading: Reading | None, target: Path) -> None:
    """Convert, compare, and put the folder in its place in one step."""
    made = Export(source=str(source), kind=kind)
    if kind == "adaptable":
        assert reading is not None
        replace_folder(target, lambda staged: _write_adaptable(staged, source, made, reading))
        return
    checkpoint = load_checkpoint(source) if kind == "checkpoint" else load_embedder(str(source))
    own = reading_of(source, checkpoint.manifest) if kind == "checkpoint" else None
    pad = int(checkpoint.tokenizer.pad_token_id)
    manifest = None if kind == "checkpoint" else checkpoint.manifest
    made = made.model_copy(update={"manifest": manifest, "pad_token": pad, "reading": own})
    replace_folder(target, lambda staged: _write_whole(staged, checkpoint, made))


def _write_whole(staged: Path, checkpoint: Checkpoint, made: Export) -> None:
    network = checkpoint.network
    checkpoint.tokenizer.backend_tokenizer.save(str(staged / exports.TOKENIZER))
    try:
        if made.reading is None:
            _save(_Backbone(network), _EXAMPLE, staged / exports.BACKBONE)
        made = _compared(staged, checkpoint, made)
    except EncoreError:
        raise
    except Exception as error:  # whatever conversion raises: this network stays with torch
        made = made.model_copy(update={"unsuitable": f"{type(error).__name__}: {str(error)[:2000]}"})
    _describe(staged, made)


def _write_adaptable(staged: Path, source: Path, made: Export, reading: Reading) -> None:
    backbone, tokenizer = load_base(source)
    if backbone.config.pad_token_id is None:
        backbone.config.pad_token_id = tokenizer.pad_token_id
    head = PairHead(int(backbone.config.hidden_size)) if reading.pairs else nn.Identity()
    network = Network(backbone, reading.pooling, head, cross_layers=reading.cross_layers).eval()
    wrapped = _Adaptable(network, reading.targets)
    adapter = torch.zeros(2, sum(layer.inputs + layer.outputs for layer in wrapped.layers), dtype=torch.float16)
    _save(wrapped, _EXAMPLE | {"adapter": adapter}, staged / exports.BACKBONE)
    found = {"reading": reading, "adapted": tuple(wrapped.layers), "base_sha256": hash_weights(source)}
    _describe(staged, made.model_copy(update=found))


def _describe(staged: Path, made: Export) -> None:
    (staged / exports.DESCRIPTION).write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")


class _Backbone(nn.Module):
    """What is traced of a network: all but its head."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor, mask: Tensor, split: Tensor) -> tuple[Tensor, ...]:
        return self.network.pooled(ids, mask, split)


class _Adaptable(nn.Module):
    """A base without a head that is told the adapter with every batch; see `training.engine.lora`."""

    def __init__(self, network: Network, targets: Sequence[str]) -> None:
        super().__init__()
        self.base, self.layers = _Backbone(network), list[Adapted]()
        self._adapter, start = torch.zeros(0), 0
        linear = [(name, module) for name, module in network.backbone.named_modules() if isinstance(module, nn.Linear)]
        for name, module in linear:
            if name.rsplit(".", 1)[-1] in targets:
                self.layers.append(Adapted(name=name, inputs=module.in_features, outputs=module.out_features))
                module.register_forward_hook(partial(self._add, start))
                start += module.in_features + module.out_features

    def forward(self, ids: Tensor, mask: Tensor, split: Tensor, adapter: Tensor) -> tuple[Tensor, ...]:
        self._adapter = adapter.float()
        return self.base(ids, mask, split)

    def _add(self, start: int, module: nn.Linear, args: tuple[Tensor], output: Tensor) -> Tensor:
        middle, end = start + module.in_features, start + module.in_features + module.out_features
        a, b = self._adapter[:, start:middle], self._adapter[:, middle:end]
        return output + (args[0] @ a.T) @ b


def _save(module: nn.Module, example: dict[str, Tensor], path: Path) -> None:
    """Trace a module and write its graph, weights in float32."""
    with _quiet():
        # Without a second trace to compare the first with, as is usual: it takes as long, and `_compared` does better.
        decoder = TorchScriptPythonDecoder(module.eval(), example_input=example, trace_kwargs={"check_trace": False})
        graph = ov.convert_model(decoder, example_input=example)
    ov.save_model(graph, path, compress_to_fp16=False)


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """A tracer warns of every branch, which the comparison answers; a converter that fails leaves the log's level."""
    level, verbosity = logging.getLogger().level, transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().setLevel(level)
        transformers_logging.set_verbosity(verbosity)


def _compared(staged: Path, checkpoint: Checkpoint, made: Export) -> Export:
    """The description with what comparing the graph with torch's float32 says of it."""
    items = _probes(checkpoint)
    device = torch.device("cpu")
    truth = _answers(checkpoint.manifest, TorchBackend(checkpoint, device).forward(items))
    for precision in ("auto", "float32"):
        backend = load(Path(made.source), checkpoint.manifest, staged, made, precision, None)
        found = _answers(checkpoint.manifest, backend.forward(items))
        alone = _answers(checkpoint.manifest, np.concatenate([backend.forward([item]) for item in items]))
        off = float(max(np.abs(found - truth).max(), np.abs(alone - truth).max()))
        if off <= _TOLERANCE:
            return made.model_copy(update={"exact": precision == "float32"})
    return made.model_copy(update={"unsuitable": f"its answers are {off:.3g} away from torch's"})


def _probes(checkpoint: Checkpoint) -> list[Encoded]:
    encoder = Encoder.of(checkpoint.tokenizer, checkpoint.manifest.max_length, checkpoint.manifest.rules)
    if checkpoint.manifest.task != "rerank":
        return encoder.encode(_PROBES)
    [groups] = encoder.encode_pairs(_PROBES[1:2], [_PROBES])
    return [group[0] for group in groups]


def _answers(manifest: Manifest, outputs: Floats) -> Any:
    """What a user would see."""
    if manifest.task == "embed":
        return outputs
    if manifest.task == "rerank":
        return relevance(outputs[:, 0], manifest.temperature, manifest.bias)
    return probabilities(outputs, manifest.temperature, multi_label=manifest.multi_label)
