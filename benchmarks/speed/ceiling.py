"""What the machine itself can do: matrix product, memory, and the time that a network would take at that speed."""

import copy
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from koa_hf.network.precision import DTYPES

MATRIX = {"cpu": 2048, "cuda": 8192}  # on GPUs a smaller product takes no longer than to start it
COPIED = 256_000_000  # bytes; more than any cache holds


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
    edge = MATRIX[device.type]
    one, other = (torch.randn(edge, edge, device=device).to(DTYPES[precision]) for _ in range(2))
    return 2 * edge**3 / min(seconds_of(lambda: one @ other, device, 1) for _ in range(10))


def copied(device: torch.device) -> float:
    """Bytes a second that a copy within the device's memory reads, and as many that it writes; best of ten."""
    one, other = (torch.zeros(COPIED, dtype=torch.uint8, device=device) for _ in range(2))
    return COPIED / min(seconds_of(lambda: other.copy_(one), device, 1) for _ in range(10))


def limits(device: torch.device, peaks: dict[str, float]) -> dict:
    """The machine's limits as every benchmark that measures against them records them.

    Args:
        peaks: precision -> `peak`, as it was measured beside the rest.
    """
    return {
        "matrix_product_gflops": {precision: round(value / 1e9) for precision, value in peaks.items()},
        "memory_copy_gigabytes_a_second": round(copied(device) / 1e9, 1),
    }


def _convolution_backward(
    grad, _images, weight, _bias, _stride, _padding, _dilation, _transposed, _output_padding, _groups, wanted, **_
) -> int:
    """Each wanted gradient, of the input and of the weights, takes what the forward pass takes.

    torch's own count takes the weights' gradient of a depthwise convolution for that of a dense one: hundreds of times
    too much.
    """
    return 2 * math.prod(grad) * math.prod(weight[1:]) * sum(wanted[:2])


def operations_of(work: Callable[[], object]) -> int:
    """Floating-point operations of some work in torch; on the device `meta` nothing is computed for it."""
    backward = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=backward) as counter:
        work()
    return counter.get_total_flops()


def operations(network: torch.nn.Module, size: int, backward: bool = False) -> int:
    """Floating-point operations of one image of size x size pixels: forward, or forward and backward."""
    network = copy.deepcopy(network).to("meta")
    images = torch.zeros(2, 3, size, size, device="meta")  # two: batch normalisation in training mode needs them
    with torch.set_grad_enabled(backward):
        return operations_of(lambda: network(images).sum().backward() if backward else network(images)) // 2
