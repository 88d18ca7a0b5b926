"""Networks run by OpenVINO on CPUs, in a process that need not load torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from training.engine import exports
from training.engine.backend import Floats
from training.engine.devices import Precision
from training.engine.encoding import Encoded, side_by_side
from training.engine.exports import Export
from training.engine.heads import Weights, apply_head, read_head
from training.engine.lora import pack
from training.hub import resolve_base
from training.manifest import Manifest

_core = ov.Core()


class Graph:
    """A compiled graph; adapters of one base share it."""

    def __init__(self, path: Path, precision: Precision, threads: int | None) -> None:
        """Compile; `auto` is bfloat16 where the processor has it in hardware."""
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if precision != "auto":
            hints["INFERENCE_PRECISION_HINT"] = {"float32": "f32", "bfloat16": "bf16"}[precision]
        if threads is not None:
            hints["INFERENCE_NUM_THREADS"] = threads
        compiled = _core.compile_model(_core.read_model(path), "CPU", hints)
        self._request = compiled.create_infer_request()
        self.inputs = frozenset(name for port in compiled.inputs for name in port.names)
        found = compiled.get_property("INFERENCE_PRECISION_HINT")
        self.precision = "bfloat16" if found == ov.Type.bf16 else "float32"
        # The file has float32; what the graph computes with is in its precision.
        self.nbytes = path.with_suffix(".bin").stat().st_size // (2 if self.precision == "bfloat16" else 1)

    def run(self, given: dict[str, NDArray[Any]]) -> list[Floats]:
        """Outputs in order; inputs that the graph does not have are left out."""
        named = {name: array for name, array in given.items() if name in self.inputs}
        # Copied, some kilobytes: a graph that was lent arrays keeps their addresses, and wrote past one that was gone.
        return list(self._request.infer(named, share_inputs=False, share_outputs=False).to_tuple())


class OpenVinoBackend:
    """A checkpoint or embedder, from its export."""

    name = "openvino"

    def __init__(
        self,
        backbone: Graph,
        head: Weights | None,
        pad_token: int,
        max_length: int,
        adapter: NDArray[np.float16] | None = None,
    ) -> None:
        """Join the parts; `head` is None for an embedder, `adapter` is for a shared backbone."""
        self._backbone, self._head, self._adapter = backbone, head, adapter
        self._pad, self._max_length = pad_token, max_length
        self.precision = backbone.precision

    @property
    def nbytes(self) -> int:
        """Memory of the weights; of an adapter its own."""
        head = sum(array.nbytes for array in (self._head or {}).values())
        return head + (self._backbone.nbytes if self._adapter is None else self._adapter.nbytes)

    def forward(self, items: Sequence[Encoded]) -> Floats:
        """Run one batch: float32 of shape (items, width)."""
        longest = max(map(len, items))
        arrays = side_by_side(items, self._pad, max(longest, min(_rounded(longest), self._max_length)))
        given: dict[str, NDArray[Any]] = dict(zip(("ids", "mask", "split"), arrays, strict=True))
        if self._adapter is not None:
            given["adapter"] = self._adapter
        return apply_head(self._backbone.run(given), self._head)


def _rounded(length: int) -> int:
    """A length filled up by an eighth at most, so that there are few: a new shape costs some milliseconds."""
    step = 1 << max(length.bit_length() - 4, 0)
    return -(-length // step) * step


_shared: WeakValueDictionary[tuple[Path, str, int | None], Graph] = WeakValueDictionary()


def load(
    source: Path, manifest: Manifest, folder: Path, export: Export, precision: Precision, threads: int | None
) -> OpenVinoBackend:
    """Load the graphs of a suitable export.

    Args:
        source: the checkpoint or base that it was made of.
        manifest: of the checkpoint, or of the base as an embedder.
        folder: the export's.
        export: what it says.
        precision: `auto` is what the export says, else what the processor has.
        threads: of one forward pass; all by default.

    Raises:
        ModelError: an adapter whose base has changed or is gone.
    """
    wanted = "float32" if precision == "auto" and export.exact else precision
    head = None if manifest.task == "embed" else read_head(source, manifest)
    if export.reading is None:
        graph = Graph(folder / exports.BACKBONE, wanted, threads)
        return OpenVinoBackend(graph, head, export.pad_token, manifest.max_length)
    base = resolve_base(export.reading.base_model)
    place = exports.find(base, "adaptable", export.reading)
    shared = exports.read(place)
    manifest.check_base(source, shared.base_sha256)
    key = (place, wanted, threads)
    graph = _shared.get(key) or Graph(place / exports.BACKBONE, wanted, threads)
    _shared[key] = graph
    return OpenVinoBackend(graph, head, export.pad_token, manifest.max_length, pack(source, shared.adapted))
