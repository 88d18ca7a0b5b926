"""What the machine could do: matrix products, by torch on all cores."""

import time

import torch

from benchmarks.speed.talk import answer


def products(precision: str, shapes: list[list[int]], seconds: float = 1.0) -> float:
    """Billions of floating-point operations a second over products (m, k) x (k, n), one after the other."""
    pairs = [
        (torch.randn(m, k, dtype=getattr(torch, precision)), torch.randn(k, n, dtype=getattr(torch, precision)))
        for m, k, n in shapes
    ]
    outputs = [left @ right for left, right in pairs]

    def work() -> None:
        for (left, right), out in zip(pairs, outputs, strict=True):
            torch.mm(left, right, out=out)

    work()
    began, times = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        times += 1
    return times * sum(2e-9 * m * k * n for m, k, n in shapes) / (time.perf_counter() - began)


if __name__ == "__main__":
    with torch.inference_mode():
        answer({"products": products})
