"""What may be asked for as an engine; apart from `koa_hf.engines`, which imports torch, so that options are quick."""

ENGINES = ("auto", "torch", "openvino")
"""auto: the fastest that is installed and computes the same as torch."""
