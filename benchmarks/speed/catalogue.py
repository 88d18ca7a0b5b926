"""The benchmarks by name, in the order of the table."""

from benchmarks.speed import (
    classifier_training,
    document_growth,
    few_shot,
    http_classify,
    http_rerank,
    lora_memory,
    rerank_scoring,
    reranker_training,
    start_up,
)
from benchmarks.speed.harness import Benchmark

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("rerank_scoring", rerank_scoring.measure),
        Benchmark("http_rerank", http_rerank.measure),
        Benchmark("http_classify", http_classify.measure),
        Benchmark("classifier_training", classifier_training.speed(16)),
        Benchmark("classifier_training_32", classifier_training.speed(32)),
        Benchmark("classifier_quality", classifier_training.quality, quality=True),
        Benchmark("reranker_training", reranker_training.speed),
        Benchmark("reranker_quality", reranker_training.quality, quality=True),
        Benchmark("few_shot", few_shot.measure),
        Benchmark("start_up", start_up.measure),
        Benchmark("lora_memory", lora_memory.measure),
        Benchmark("document_growth", document_growth.measure),
    )
}
