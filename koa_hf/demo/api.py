"""The demo's endpoints for programs: typed functions and what clients are told of them. They are MCP tools as well."""

from pathlib import Path

from koa_hf.demo import batch
from koa_hf.demo.batch import Limits
from koa_hf.errors import KoaError
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.examination import examine
from koa_hf.grading.grader import Grader
from koa_hf.imaging.radiograph import Radiograph, read

_GRADING = (
    "source (str), grade (int, Kellgren-Lawrence 0 none to 4 severe), name (str), probabilities (five floats, KL 0 to "
    "4, summing to 1), calibrated (bool), expected_grade (float, 0 to 4), grade_set (lowest and highest grade) and "
    "coverage (share of knees whose set holds the reader's grade), familiar (bool; false: the image is unlike the "
    "training knees, and the grade means little) and unfamiliarity (float, over 1 is unfamiliar), inverted (bool: a "
    "negative, righted), turned (bool: upside down, righted), model (str), revision (str), seconds (float); what the "
    "model can't tell is null"
)
_ALWAYS = f"An unreadable file is an error of one sentence. {RESEARCH_USE_NOTICE}"

DESCRIPTIONS = {
    "grade": f"Grade a knee X-ray that shows one knee, cropped to the joint. Returns {_GRADING}. {_ALWAYS}",
    "grade_film": "Find the knees in a knee X-ray, such as a whole film with both, and grade each. Returns a list, "
    "left to right in the image: side (right, left or null: the patient's), box ([left, top, right, bottom] in "
    f"pixels; null: the whole image was graded), and {_GRADING}. {_ALWAYS}",
    "grade_many": "Grade many knee X-rays, and zips of them. Returns a list with an entry for each knee: file (str), "
    "error (null, or the sentence that says why this file could not be graded; it doesn't stop the others), side and "
    f"box as in grade_film, and {_GRADING}. {RESEARCH_USE_NOTICE}",
}
"""By the name of the endpoint."""


class Api:
    """The endpoints; each raises `KoaError` for what can't be graded.

    Files are given by their paths on the server, where the client library has uploaded them.
    """

    def __init__(self, grader: Grader, limits: Limits):
        self._grader = grader
        self._limits = limits

    def grade(self, image: str) -> dict:
        """`Grading.to_dict` of an image, taken as it is."""
        return examine(self._grader, [self._read(image)], as_it_is=True)[0].reports[0].grading.to_dict()

    def grade_film(self, image: str) -> list[dict]:
        """One `Grading.to_dict` for each knee found, with `side` and `box`."""
        reports = examine(self._grader, [self._read(image)])[0].reports
        return [{"side": one.xray.side, "box": one.box, **one.grading.to_dict()} for one in reports]

    def grade_many(self, files: list[str]) -> list[dict]:
        """`Row.to_dict` for each knee of each file."""
        if not files:
            raise KoaError("no files were given; pass [handle_file('a.png'), handle_file('more.zip')].")
        done = batch.grade_all(self._grader, [Path(file) for file in files], self._limits)
        return [row.to_dict() for rows in done for row in rows]

    def _read(self, image: str | None) -> Radiograph:
        if not image:
            raise KoaError("no X-ray was given; pass handle_file('knee.png').")
        return read(image, max_pixels=self._limits.pixels)
