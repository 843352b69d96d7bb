"""Knee osteoarthritis grading from X-rays (Kellgren-Lawrence 0 to 4).

    from koa_hf import Grader

    print(Grader.from_pretrained().grade("knee.png").grade)

The rooms, each importing only from those before it: `imaging` (any file to upright, bone-bright pixels), `data` (the
release as a data set) and `network` (timm, torch, OpenVINO), `grading` (the result and how it is made), `report` and
`hub`, `cohort`, `demo` and `cli`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koa_hf.data.load import load_dataset
    from koa_hf.errors import KoaError
    from koa_hf.grading.examination import examine
    from koa_hf.grading.grader import Grader
    from koa_hf.grading.result import Grading
    from koa_hf.imaging.localiser import find_knees
    from koa_hf.imaging.radiograph import Radiograph, read

__version__ = "0.1.0"

__all__ = ["Grader", "Grading", "KoaError", "Radiograph", "examine", "find_knees", "load_dataset", "read"]

# Imported on first use, so that a command that needs no network does not wait for torch.
_MODULES = {
    "Grader": "koa_hf.grading.grader",
    "Grading": "koa_hf.grading.result",
    "KoaError": "koa_hf.errors",
    "Radiograph": "koa_hf.imaging.radiograph",
    "examine": "koa_hf.grading.examination",
    "find_knees": "koa_hf.imaging.localiser",
    "load_dataset": "koa_hf.data.load",
    "read": "koa_hf.imaging.radiograph",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
