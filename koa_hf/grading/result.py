"""The result type: the complete answer on one knee, each field described once.

JSON, CSV, the API, the page and the PDF are views of `Grading`; their documentation comes from its field descriptions.
This module needs no torch, so pages, tables and reports import it at once.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, computed_field

from koa_hf.grades import NUM_GRADES
from koa_hf.imaging.radiograph import Radiograph

SCHEMA = "koa-grading/2"
"""Version of `Grading.to_dict`: its number rises when a key goes or changes its meaning; keys may be added under it."""


MEASURED_ON = "knees of the Osteoarthritis Initiative, cropped as in the 2018 release"
"""X-rays that the coverage of prediction sets was measured on; for others it is unknown."""


class FileResult(BaseModel):
    """The common part of both outcomes: a graded knee, or a file that could not be graded."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())

    file: str = Field(description="name of the input file, with its folder in a zip")

    @classmethod
    def descriptions(cls) -> dict[str, str]:
        """The description of each key of `to_dict`, in order."""
        fields = {name: field.description for name, field in cls.model_fields.items() if not field.exclude}
        computed = {name: field.description for name, field in cls.model_computed_fields.items()}
        return {name: description or "" for name, description in {**fields, **computed}.items()}

    def to_dict(self) -> dict[str, Any]:
        """All fields but the heat map, in types that JSON has."""
        return self.model_dump(mode="json")


class NotGraded(FileResult):
    """A file that could not be graded."""

    error: str = Field(description="one sentence: why the file could not be graded, and what to do")


class Grading(FileResult):
    """The grading of one knee. Two are equal if everything but `seconds` and `heatmap` is."""

    sha256: str | None = Field(
        default=None, description="SHA-256 of the input file, hexadecimal; null if not read from a file"
    )
    side: str | None = Field(
        default=None,
        description="the patient's right or left knee, as the user set it, else by the file's tags, its place or its "
        "shape; null if unknown",
    )
    side_by_user: bool = Field(default=False, description="true if the user set the side on the film")
    view: str | None = Field(
        default=None, description="AP, PA, lateral, axial or oblique, as the file states; null if it does not"
    )
    box: tuple[int, int, int, int] | None = Field(
        default=None,
        description="box around the knee: left, top, right, bottom in pixels of the film, once turned or resampled as "
        "notes say; what lies beyond the film is left out; null if the whole image was graded",
    )
    notes: tuple[str, ...] = Field(default=(), description="sentences about choices made in reading the file")
    cautions: tuple[str, ...] = Field(
        default=(),
        description="sentences about why the grade or the side may be wrong, such as a lateral view or contradictory "
        "tags; empty for an ordinary X-ray",
    )
    grade: int = Field(
        ge=0,
        lt=NUM_GRADES,
        description="Kellgren-Lawrence grade, 0 to 4: the most probable one",
    )
    name: str = Field(description="name of the grade: none, doubtful, minimal, moderate or severe")
    probabilities: tuple[float, ...] = Field(
        min_length=NUM_GRADES, max_length=NUM_GRADES, description="probabilities of KL 0 to 4, which sum to 1"
    )
    calibrated: bool = Field(description="true if the probabilities were calibrated on knees held out from training")
    expected_grade: float = Field(description="mean of the grades under the probabilities, 0 to 4")
    grade_set: tuple[int, int] | None = Field(
        default=None, description="lowest and highest grade of the prediction set; null if the model gives none"
    )
    coverage: float | None = Field(
        default=None,
        description="share of knees whose prediction set is built to hold a reader's grade, 0 to 1; null without a set",
    )
    familiar: bool | None = Field(
        default=None,
        description="false if the image is out of distribution, unlike the training knees, so that the grade means "
        "little; null if the model can't tell",
    )
    unfamiliarity: float | None = Field(
        default=None,
        description="distance from the training knees; over 1 is out of distribution; null if the model can't tell",
    )
    inverted: bool = Field(default=False, description="true if a photographic negative was inverted before grading")
    turned: bool = Field(
        default=False, description="true if an upside-down X-ray was turned by 180 degrees before grading"
    )
    model: str = Field(description="folder or Hub id of the model")
    revision: str = Field(description="Hub commit of the model, or the first digits of its weights' SHA-256")
    model_note: str = Field(default="", description="notice from the model's maker to every user; may be empty")
    seconds: float = Field(description="duration of the grading; in a batch, an equal share of the batch's")
    heatmap: np.ndarray = Field(
        exclude=True,
        repr=False,
        description="class activation map, float32 (5, height, width): what each cell of the final feature map adds to "
        "each grade's logit; it lies on the X-ray as read, also where that was turned before grading",
    )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grading) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> tuple:
        return tuple(value for name, value in self if name not in ("seconds", "heatmap"))

    @computed_field(description="one phrase on the lead of the most probable grade over the next")  # type: ignore[prop-decorator]
    @property
    def certainty(self) -> str:
        """The lead of the most probable grade over the next, e.g. `Leans to KL 2 (58%); KL 1 is next (22%)`."""
        first, second = sorted(range(NUM_GRADES), key=self.probabilities.__getitem__, reverse=True)[:2]
        highest, next_highest = self.probabilities[first], self.probabilities[second]
        following = f"; {self._with_probability(second, ' is next')}"
        if highest >= 0.9:
            phrase = f"Clearly {self._with_probability(first, ' to the model')}"
        elif highest >= 0.7:
            phrase = f"Fairly sure of {self._with_probability(first)}{following}"
        elif highest >= 0.5 or highest - next_highest >= 0.2:
            phrase = f"Leans to {self._with_probability(first)}{following}"
        else:
            between = " and ".join(map(self._with_probability, sorted((first, second))))
            phrase = f"Unsure, chiefly between {between}"
        return phrase

    @computed_field(  # type: ignore[prop-decorator]
        description="all there is to know beside the grade, for a table: caveats in a few words, cautions, notes"
    )
    @property
    def remarks(self) -> list[str]:
        """Caveats in a few words, then cautions and notes; empty for an ordinary knee."""
        remarks = {
            "unlike the training knees": self.familiar is False,
            "negative, inverted": self.inverted,
            "upside down, turned": self.turned,
        }
        return [*(remark for remark, applies in remarks.items() if applies), *self.cautions, *self.notes]

    @property
    def range_in_words(self) -> str:
        """The prediction set in words, e.g. `could be KL 1 to 2`; empty if the model gives none."""
        if self.grade_set is None:
            return ""
        low, high = self.grade_set
        return f"could be KL {low} to {high}" if low < high else "the only grade in its range"

    @property
    def coverage_in_words(self) -> str:
        """See `coverage_in_words`; empty if the model gives no prediction set."""
        return "" if self.coverage is None else coverage_in_words(self.coverage)

    @property
    def summary(self) -> str:
        """The grade with its prediction set, e.g. `KL 2, could be KL 1 to 3 (90% coverage)`."""
        if self.coverage is None:
            return f"KL {self.grade}"
        return f"KL {self.grade}, {self.range_in_words} ({percent(self.coverage)} coverage)"

    def _with_probability(self, grade: int, words: str = "") -> str:
        return f"KL {grade}{words} ({percent(self.probabilities[grade])})"


class KneeGrader(Protocol):
    """Anything that grades radiographs: `koa_hf.Grader`, and the demo's wrappers around it.

    Attributes:
        model_id, revision, note: `Grading.model`, `revision` and `model_note` of its gradings.
    """

    model_id: str
    revision: str
    note: str

    def grade_batch(self, radiographs: Sequence[Radiograph]) -> list[Grading]:
        """Grade several radiographs, in order."""
        ...


def coverage_in_words(coverage: float) -> str:
    """The claim of prediction sets of this coverage, and the X-rays for which it was measured."""
    return f"such ranges hold a reader's grade in {percent(coverage)} of {MEASURED_ON}; elsewhere not measured"


def percent(probability: float) -> str:
    """A probability for people: `58%`, and never a flat 0% or 100% that isn't one."""
    if 0 < probability < 0.005:
        return "<1%"
    if 0.995 <= probability < 1:
        return ">99%"
    return f"{probability * 100:.0f}%"
