"""Floating-point precision, chosen by device."""

import functools
import time

import torch

from koa_hf.errors import KoaError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

WORTH_ROUNDING = 1.2  # smallest speed-up for which bfloat16, with 8 of float32's 24 bits, is chosen


def choose_precision(wanted: str = "auto", device: str | torch.device = "cpu") -> str:
    """Choose `fp32`, `bf16` or `fp16` for a device.

    auto: on CPUs bfloat16 if the hardware has it (AVX512-BF16 or AMX) and multiplies matrices faster in it, measured
    once per process in about 0.1 s; else float32. On NVIDIA GPUs bfloat16 from compute capability 8 on, else float16.

    Raises:
        KoaError: float16 on a CPU, where it is slower than float32.
    """
    on_cpu = torch.device(device).type == "cpu"
    if wanted == "fp16" and on_cpu:
        raise KoaError("fp16 needs a GPU; on a CPU choose bf16, fp32 or auto.")
    if wanted != "auto":
        return wanted
    if on_cpu:
        return "bf16" if _has_bf16() and bf16_speedup() > WORTH_ROUNDING else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast context for `fp32` (disabled), `bf16` or `fp16` on a device."""
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def _has_bf16() -> bool:
    """True if this CPU has bfloat16 instructions, fast or not."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@functools.cache
def bf16_speedup() -> float:
    """Measured speed-up of bfloat16 over float32 in matrix products on this CPU.

    Measured, because the instructions alone say little: AMD's Zen 4 and Intel's AMX are at least twice as fast in
    bfloat16, but an Intel core with AVX512-BF16 and without AMX takes twice as long as in float32.
    """
    # The middle flow's product on four images; formats alternate, so that a busy machine slows both.
    pixels, weights = torch.ones(4 * 19 * 19, 728), torch.ones(728, 728)
    pairs = {"fp32": (pixels, weights), "bf16": (pixels.bfloat16(), weights.bfloat16())}
    seconds = dict.fromkeys(pairs, float("inf"))
    for _ in range(5):
        for name, (one, other) in pairs.items():
            began = time.perf_counter()
            one @ other
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds["fp32"] / seconds["bf16"]
