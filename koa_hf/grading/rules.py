"""The rules between a network's logits and a grading, which a model folder carries in grading.json.

`train/calibrate.py` fits and writes them; the Grader and `train/validate.py` apply them. Without the file the result is
the network's own, as timm and transformers give it: softmax probabilities, the most probable grade, no prediction set
and no out-of-distribution detection. Negatives and upside-down X-rays are recognised in the same way for every model
(`koa_hf.imaging.polarity`, `koa_hf.imaging.orientation`); the file only switches their correction on.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from koa_hf.errors import KoaError
from koa_hf.files import write_text
from koa_hf.grading import calibration
from koa_hf.grading.familiarity import Familiarity
from koa_hf.imaging import orientation, polarity
from koa_hf.imaging.radiograph import Radiograph

RULES_FILE = "grading.json"


class GradeSets(BaseModel):
    """Prediction sets that hold the reader's grade in a share `coverage` of knees: `calibration.grade_sets`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    coverage: float = Field(gt=0, lt=1)
    level: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class Righted:
    """An X-ray with bone bright and the femur on top, and the corrections made: inversion, rotation by 180°."""

    xray: Radiograph
    inverted: bool
    turned: bool


class Rules(BaseModel):
    """The content of grading.json.

    Attributes:
        right_negatives: invert photographic negatives before grading.
        right_upside_down: turn upside-down X-rays before grading.
        temperature: divisor of the logits; None: not calibrated.
        sets, familiarity: None where the model has no prediction sets or no out-of-distribution detection.
        fitted_on: split, images and fingerprint of the data set, and the like; for people, not used.
        held_out: performance of the rules on patients that they weren't fitted to; for people, not used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2] = 2
    right_negatives: bool = False
    right_upside_down: bool = False
    temperature: float | None = Field(default=None, gt=0)
    sets: GradeSets | None = None
    familiarity: Familiarity | None = None
    fitted_on: dict = {}
    held_out: dict = {}

    def righted(self, xray: Radiograph) -> Righted:
        """The X-ray upright and with bone bright."""
        pixels = xray.pixels
        turned = self.right_upside_down and orientation.is_upside_down(pixels)
        if turned:
            pixels = orientation.rotated_180(pixels)
        inverted = self.right_negatives and polarity.is_negative(pixels)
        if inverted:
            pixels = 255 - pixels
        return Righted(dataclasses.replace(xray, pixels=pixels), inverted, turned)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits float (n, 5) -> probabilities float64 (n, 5), rows summing to 1."""
        return calibration.probabilities_of(logits, self.temperature or 1.0)

    @classmethod
    def load(cls, folder: Path) -> "Rules":
        """Read a model folder's grading.json; the default rules where it has none.

        Raises:
            KoaError: the file is damaged, or from a later version of this project.
        """
        path = folder / RULES_FILE
        if not path.is_file():
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise KoaError(
                f"{path} is damaged or from another version of this project; download the model again or update."
            ) from error

    def save(self, folder: Path) -> None:
        write_text(folder / RULES_FILE, json.dumps(self.model_dump(mode="json"), indent=2) + "\n")
