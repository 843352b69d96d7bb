"""Which number format a device computes in."""

import torch

from koa_hf.errors import KoaError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(wanted: str = "auto", device: str | torch.device = "cpu") -> str:
    """`fp32`, `bf16` or `fp16` for a device.

    auto: bfloat16 where the hardware multiplies it natively (AVX512-BF16 or AMX on CPUs, compute capability 8 and up
    on NVIDIA), else float16 on GPUs and float32 on CPUs.

    Raises:
        KoaError: float16 on a CPU, which computes it slower than float32.
    """
    on_cpu = torch.device(device).type == "cpu"
    if wanted == "fp16" and on_cpu:
        raise KoaError("fp16 needs a GPU; on a CPU choose bf16, fp32 or auto.")
    if wanted != "auto":
        return wanted
    if on_cpu:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if native else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context in which torch computes in `fp32`, `bf16` or `fp16` on a device."""
    dtype = _DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
