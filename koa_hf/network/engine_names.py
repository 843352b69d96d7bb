"""Names of engines and precisions. Imports no torch, so that a command's --help is quick."""

ENGINES = ("auto", "torch", "openvino")
"""auto: OpenVINO on CPUs, if it is installed and agrees with torch; else torch. See `koa_hf.network.engines`."""

ENGINE_HELP = "what computes (default: openvino on CPUs where it agrees with torch)"

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""auto: chosen by device. See `koa_hf.network.precision.choose_precision`."""


def for_accelerate(precision: str) -> str:
    """Accelerate's name of a precision: float32 is `no`, that is, not mixed."""
    return "no" if precision == "fp32" else precision


def from_accelerate(mixed_precision: str) -> str:
    """The precision of Accelerate's `mixed_precision`."""
    return "fp32" if mixed_precision == "no" else mixed_precision
