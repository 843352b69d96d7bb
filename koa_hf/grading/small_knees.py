"""Correction for knees with fewer pixels than the training crops.

On a whole film a knee is often narrower than the release's crops of 224 pixels. Enlarged, it lacks fine detail, which a
network that never saw such knees takes for damage: its grades rise. The rise is much the same for all knees, so five
numbers per width, added to the logits, undo most of it: the bias of vector scaling (Guo et al. 2017,
https://arxiv.org/abs/1706.04599), fitted by `train/fit_small_knees.py` to the network's logits at full resolution.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from koa_hf.grades import NUM_GRADES

FULL_WIDTH = 224
"""Width of the release's crops in pixels: from here on nothing is added."""


class SmallKnees(BaseModel):
    """Shifts of a small knee's logits by its width, interpolated over the width's logarithm.

    Attributes:
        widths: pixels, ascending, all below `FULL_WIDTH`. Knees below the first have its shift.
        shifts: five numbers for each width, KL 0 to 4.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: Annotated[tuple[int, ...], Field(min_length=1)]
    shifts: tuple[tuple[float, float, float, float, float], ...]

    @model_validator(mode="after")
    def _a_shift_for_each_width(self):
        if len(self.shifts) != len(self.widths):
            raise ValueError(f"there are {len(self.shifts)} shifts for {len(self.widths)} widths")
        if list(self.widths) != sorted(set(self.widths)) or not 0 < self.widths[0] <= self.widths[-1] < FULL_WIDTH:
            raise ValueError(f"widths must ascend and lie between 1 and {FULL_WIDTH - 1}")
        return self

    def shift(self, widths: Sequence[int]) -> np.ndarray:
        """Shifts of the logits of knees of these widths in pixels: float64 (n, 5)."""
        known = np.log([*self.widths, FULL_WIDTH])
        at = np.log(np.maximum(widths, 1))
        values = np.array([*self.shifts, (0.0,) * NUM_GRADES])
        return np.stack([np.interp(at, known, column) for column in values.T], axis=1)
