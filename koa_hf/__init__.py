"""Knee osteoarthritis grading from X-rays (Kellgren-Lawrence 0 to 4).

    from koa_hf import Grader

    print(Grader.from_pretrained().grade("knee.png").grade)

The rooms, each importing only from those before it: `imaging` (any file to upright, bone-bright pixels), `data` (the
release as a data set) and `network` (timm, torch, OpenVINO), `grading` (the result and how it is made), `report` and
`hub`, `demo` and `cli`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koa_hf.data.load import load_dataset
    from koa_hf.errors import KoaError
    from koa_hf.grading.grader import Grader, Grading

__version__ = "0.1.0"

__all__ = ["Grader", "Grading", "KoaError", "load_dataset"]

# Imported on first use, so that a command which needs no network does not wait for torch.
_MODULES = {
    "Grader": "koa_hf.grading.grader",
    "Grading": "koa_hf.grading.grader",
    "KoaError": "koa_hf.errors",
    "load_dataset": "koa_hf.data.load",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
