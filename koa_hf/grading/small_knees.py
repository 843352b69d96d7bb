"""What a network makes of knees that have fewer pixels than those it was trained on, and how that is put right.

On a whole film a knee is often narrower than the release's crops of 224 pixels. Enlarged, it lacks the finest detail,
and a network that never saw that takes it for damage: its grades rise. The rise is much the same for all knees, so that
five numbers for each width, added to the logits, take most of it back: the bias of vector scaling (Guo et al. 2017,
https://arxiv.org/abs/1706.04599), fitted by `train/fit_small_knees.py` to what the network says of the same knees in full.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from koa_hf.grades import NUM_GRADES

FULL_WIDTH = 224
"""Pixels of the release's crops: from this width on nothing is added."""


class SmallKnees(BaseModel):
    """What is added to a small knee's logits, by its width; between two widths it goes by the width's logarithm.

    Attributes:
        widths: pixels, rising, all under `FULL_WIDTH`. Under the least of them its own shift holds.
        shifts: for each width five numbers, KL 0 to 4.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: Annotated[tuple[int, ...], Field(min_length=1)]
    shifts: tuple[tuple[float, float, float, float, float], ...]

    @model_validator(mode="after")
    def _a_shift_for_each_width(self):
        if len(self.shifts) != len(self.widths):
            raise ValueError(f"{len(self.widths)} widths have {len(self.shifts)} shifts")
        if list(self.widths) != sorted(set(self.widths)) or not 0 < self.widths[0] <= self.widths[-1] < FULL_WIDTH:
            raise ValueError(f"widths must rise, from over 0 to under {FULL_WIDTH}")
        return self

    def shift(self, widths: Sequence[int]) -> np.ndarray:
        """What is added to the logits of knees so many pixels wide: float64 (n, 5)."""
        known = np.log([*self.widths, FULL_WIDTH])
        at = np.log(np.maximum(widths, 1))
        values = np.array([*self.shifts, (0.0,) * NUM_GRADES])
        return np.stack([np.interp(at, known, column) for column in values.T], axis=1)
