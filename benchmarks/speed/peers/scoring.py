# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false
"""Scores with a cross-encoder by sentence-transformers, on one of its backends.

    scoring.py FOLDER WORK torch|onnx|openvino [int8 [CALIBRATION]]

Whatever is not in FOLDER is written below WORK. For int8 ONNX's dynamic quantisation is used as the library offers it;
OpenVINO's static one is calibrated on a parquet file of texts.
"""

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.talk import answer

MAX_LENGTH = 512


def load(folder: Path, work: Path, backend: str, int8: bool, calibration: Path | None) -> Any:
    """The cross-encoder, exported and quantised if that has not been done."""
    import sentence_transformers as library

    given = {"device": "cpu", "max_length": MAX_LENGTH}
    if backend == "torch":
        return library.CrossEncoder(str(folder), **given)
    exported = work / f"{folder.name}-{backend}"
    if not exported.exists():
        library.CrossEncoder(str(folder), backend=backend, **given).save_pretrained(str(exported))
    name = "openvino_model.xml" if backend == "openvino" else "model.onnx"
    if int8:
        model = library.CrossEncoder(str(exported), backend=backend, **given)
        if backend == "openvino":
            from optimum.intel import OVQuantizationConfig

            name = "openvino_model_qint8_quantized.xml"
            if not (exported / "openvino" / name).exists():
                library.export_static_quantized_openvino_model(
                    model,
                    OVQuantizationConfig(),
                    str(exported),
                    dataset_name=str(calibration),
                    dataset_config_name="default",
                    dataset_split="train",
                    column_name="text",
                )
        else:
            name = "model_qint8_avx512_vnni.onnx"
            if not (exported / "onnx" / name).exists():
                library.export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(exported))
    return library.CrossEncoder(str(exported), backend=backend, model_kwargs={"file_name": name}, **given)


def rank(asked: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Score the documents of queries, one query after the other: seconds and scores."""
    began, scores = time.perf_counter(), []
    for query, documents in asked:
        found = model.predict([(query, document) for document in documents], show_progress_bar=False)
        scores.append(found.tolist())
    return {"seconds": time.perf_counter() - began, "scores": scores}


def calibrate(texts: list[str], folder: str) -> None:
    """Write texts as a data set that quantisation can read."""
    from datasets import Dataset

    Path(folder).mkdir(parents=True, exist_ok=True)
    Dataset.from_dict({"text": texts}).to_parquet(str(Path(folder) / "train.parquet"))


def prepare() -> None:
    """Load the model: not at the start, as it may take what `calibrate` writes."""
    global model
    folder, work, backend, *rest = sys.argv[1:]
    model = load(Path(folder), Path(work), backend, bool(rest), Path(rest[1]) if len(rest) > 1 else None)


if __name__ == "__main__":
    model: Any
    answer({"rank": rank, "calibrate": calibrate, "prepare": prepare})
