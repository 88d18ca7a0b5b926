"""What a further classifier costs, whose weights are an adapter of a base that is loaded already."""

import shutil
from pathlib import Path

import httpx
from safetensors.torch import load_file, save_file

from benchmarks.speed import models, servers
from benchmarks.speed.harness import Line, Options
from benchmarks.speed.start_up import api_process

_COPIES = 12
_SKIPPED = 2
"""The first ones load the base, and what code they need; growth is counted from there on."""


def measure(options: Options) -> list[Line]:
    """Megabytes by which the server's process grows with each."""
    checkpoint = models.classifier(options, "--lora.r", "16", name="adapter")
    folders = {f"sorter-{number}": _varied(checkpoint, number, options) for number in range(_COPIES)}
    sizes: list[float] = []
    with servers.ours(options, folders) as server:
        process = api_process(server.process.pid)
        for name in folders:
            body = {"model": name, "inputs": ["where is my parcel"]}
            httpx.post(f"{server.url}/v1/classify", json=body, timeout=120).raise_for_status()
            sizes.append(process.memory_full_info().uss / 2**20)
    growth = (sizes[-1] - sizes[_SKIPPED - 1]) / (_COPIES - _SKIPPED)
    note = f"mean of {_COPIES - _SKIPPED}, different weights, each asked once"
    return [Line("memory per further LoRA classifier, USS", "MB", [growth], less=True, wanted=3.0, note=note)]


def _varied(checkpoint: Path, number: int, options: Options) -> Path:
    """A copy with other weights in its adapter, so that nothing can be shared but the base."""
    folder = options.work / "adapters" / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoint, folder)
    path = folder / "adapter_model.safetensors"
    save_file({name: weights * (1 + 0.001 * number) for name, weights in load_file(path).items()}, path)
    return folder
