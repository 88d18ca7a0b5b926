"""Figures for Prometheus, shown at BentoML's `/metrics`, summed over workers."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("encore_requests_total", "Requests answered.", ("route", "method", "status"))
SECONDS = Histogram(
    "encore_request_seconds",
    "From a request's first byte to its answer's last.",
    ("route",),
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
BATCHES = Counter("encore_batches_total", "Forward passes.")
BATCH_TEXTS = Histogram("encore_batch_texts", "Texts of one forward pass.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256))
TOKENS = Counter("encore_tokens_total", "Tokens scored, special tokens included.")
PADDED_TOKENS = Counter("encore_padded_tokens_total", "Tokens scored, padding included.")
QUEUED_TOKENS = Gauge("encore_queued_tokens", "Tokens that wait for a forward pass.", multiprocess_mode="livesum")
LOADED_MODELS = Gauge("encore_loaded_models", "Models in memory.", multiprocess_mode="livesum")
LOADED_BYTES = Gauge("encore_loaded_bytes", "Weights in memory, in bytes.", multiprocess_mode="livesum")
MODEL_LOADS = Counter("encore_model_loads_total", "Models loaded from disk.")
EXAMPLE_FITS = Counter("encore_example_fits_total", "Heads fitted on a request's examples; the rest were remembered.")
