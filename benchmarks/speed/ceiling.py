"""The machine's own limits: matrix product, memory copy, and the floating-point operations of a network."""

import copy
import math
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.timing import median_seconds
from koa_hf.network.precision import DTYPES

MATRIX = {"cpu": 2048, "cuda": 8192}  # edge; on a GPU a smaller product is dominated by its launch
COPIED = 256_000_000  # bytes; larger than any cache


def peak(device: torch.device, precision: str) -> float:
    """Matrix product, floating-point operations per second; best of ten."""
    edge = MATRIX[device.type]
    one, other = (torch.randn(edge, edge, device=device).to(DTYPES[precision]) for _ in range(2))
    return 2 * edge**3 / min(median_seconds(lambda: one @ other, device, 1) for _ in range(10))


def copied(device: torch.device) -> float:
    """Copy within the device's memory, bytes read per second (as many are written); best of ten."""
    one, other = (torch.zeros(COPIED, dtype=torch.uint8, device=device) for _ in range(2))
    return COPIED / min(median_seconds(lambda: other.copy_(one), device, 1) for _ in range(10))


def limits(device: torch.device, peaks: dict[str, float]) -> dict:
    """The machine's limits, as the result files state them.

    Args:
        peaks: precision -> `peak`, measured during the same run.
    """
    return {
        "matrix_product_gflops": {precision: round(value / 1e9) for precision, value in peaks.items()},
        "memory_copy_gigabytes_a_second": round(copied(device) / 1e9, 1),
    }


def _convolution_backward(
    grad, _images, weight, _bias, _stride, _padding, _dilation, _transposed, _output_padding, _groups, wanted, **_
) -> int:
    """Operations of a convolution's backward pass: as many as the forward pass for each gradient wanted.

    torch's own count treats the weight gradient of a depthwise convolution as dense, hundreds of times too much.
    """
    return 2 * math.prod(grad) * math.prod(weight[1:]) * sum(wanted[:2])


def operations_of(work: Callable[[], object]) -> int:
    """Floating-point operations of a call in torch; on the device `meta` they are counted without being computed."""
    backward = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=backward) as counter:
        work()
    return counter.get_total_flops()


def operations(network: torch.nn.Module, size: int, backward: bool = False) -> int:
    """Floating-point operations for one image of size x size pixels: forward, or forward and backward."""
    network = copy.deepcopy(network).to("meta")
    images = torch.zeros(2, 3, size, size, device="meta")  # batch normalisation in training needs two
    with torch.set_grad_enabled(backward):
        return operations_of(lambda: network(images).sum().backward() if backward else network(images)) // 2
