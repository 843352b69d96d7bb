"""Knee osteoarthritis grading from X-rays (Kellgren-Lawrence 0 to 4)."""

__version__ = "0.1.0"


def __getattr__(name: str):
    # `from koa_hf import Grader` without making every import of a small module pay for torch and timm.
    if name in ("Grader", "Grading"):
        from koa_hf import grader

        return getattr(grader, name)
    raise AttributeError(f"module 'koa_hf' has no attribute {name!r}")
