"""What may be asked for as an engine or a precision. Without torch, so that options are quick."""

ENGINES = ("auto", "torch", "openvino")
"""auto: the fastest that is installed and computes the same as torch. See `koa_hf.engines`."""

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""auto: the fastest that is worth its rounding on the device. See `koa_hf.precision.choose_precision`."""

GRADER_PRECISIONS = (*PRECISIONS, "int8")
"""What a Grader can compute in: int8 where the model has a network in it (`koa_hf.int8`). auto takes it where it is
there, and the CPU is fast in it and not in bfloat16."""
