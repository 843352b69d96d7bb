"""What may be asked for as an engine or a precision, and by which names. Without torch, so that options are quick."""

ENGINES = ("auto", "torch", "openvino")
"""auto: on CPUs OpenVINO, the faster, where it is installed and computes the same as torch. See `koa_hf.network.engines`."""

ENGINE_HELP = "what computes (default: openvino on CPUs where it agrees with torch)"

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""auto: the fastest that is worth its rounding on the device. See `koa_hf.network.precision.choose_precision`."""

GRADER_PRECISIONS = (*PRECISIONS, "int8")
"""What a Grader can compute in: int8 where the model has a network in it (`koa_hf.network.int8`). auto takes it where it is
there, and the CPU is fast in it and not in bfloat16."""


def for_accelerate(precision: str) -> str:
    """A precision as Accelerate calls it, where float32 is `no`, that is, not mixed."""
    return "no" if precision == "fp32" else precision


def from_accelerate(mixed_precision: str) -> str:
    """What Accelerate calls so, by its name here."""
    return "fp32" if mixed_precision == "no" else mixed_precision
