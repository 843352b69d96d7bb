"""What the machine itself can do: its matrix product, and the time that a network would take at that speed."""

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

MATRIX = 2048
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def seconds_of(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median seconds of some work, the first round left out."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def peak(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of the matrix product; best of ten."""
    one, other = (torch.randn(MATRIX, MATRIX, device=device).to(DTYPES[precision]) for _ in range(2))
    return 2 * MATRIX**3 / min(seconds_of(lambda: one @ other, device, 1) for _ in range(10))


def operations(network: torch.nn.Module, size: int, backward: bool = False) -> int:
    """Floating-point operations of one image of size x size pixels, on the CPU: forward, or forward and backward."""
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = network(torch.zeros(2, 3, size, size))  # two: batch normalisation in training mode needs them
        if backward:
            out.sum().backward()
    return counter.get_total_flops() // 2
