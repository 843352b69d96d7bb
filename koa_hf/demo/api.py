"""The demo's endpoints for programs, which are MCP tools as well: typed functions and their descriptions."""

from pathlib import Path

from koa_hf.demo import batch
from koa_hf.demo.batch import Limits
from koa_hf.errors import KoaError
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.examination import examine
from koa_hf.grading.result import Grading, KneeGrader, NotGraded
from koa_hf.imaging.radiograph import Radiograph, read

_KEYS = "; ".join(f"{name}: {text.replace('; ', ', ')}" for name, text in Grading.descriptions().items())
_ERROR = NotGraded.descriptions()["error"]
_UNREADABLE = "A file that can't be graded raises an error of one sentence."

DESCRIPTIONS = {
    "grade": "Grade an X-ray of one knee, cropped to the joint, on the Kellgren-Lawrence scale. "
    f"Returns an object with these keys. {_KEYS}. {_UNREADABLE} {RESEARCH_USE_NOTICE}",
    "grade_film": "Find the knees in an X-ray, such as a film of both knees, and grade each on the Kellgren-Lawrence "
    f"scale. Returns a list of objects, from the image's left to its right, with these keys. {_KEYS}. {_UNREADABLE} "
    f"{RESEARCH_USE_NOTICE}",
    "grade_many": "Grade many knee X-rays, and zips of them, on the Kellgren-Lawrence scale. Returns a list with an "
    f"object for each knee, with these keys. {_KEYS}. A file that can't be graded does not stop the others; its object "
    f"has two keys, file and error. error: {_ERROR}. {RESEARCH_USE_NOTICE}",
}
"""By the name of the endpoint."""


class Api:
    """The endpoints. Files are given by their paths on the server, where the client library uploads them.

    Each raises `KoaError` for a file that can't be graded.
    """

    def __init__(self, grader: KneeGrader, limits: Limits):
        self._grader = grader
        self._limits = limits

    def grade(self, image: str) -> dict:
        """`Grading.to_dict` of an image, graded as a whole."""
        return examine(self._grader, [self._read(image)], as_it_is=True)[0].knees[0].grading.to_dict()

    def grade_film(self, image: str) -> list[dict]:
        """`Grading.to_dict` of each knee found, left to right."""
        return [knee.grading.to_dict() for knee in examine(self._grader, [self._read(image)])[0].knees]

    def grade_many(self, files: list[str]) -> list[dict]:
        """`Grading.to_dict` of each knee of each file, or `NotGraded.to_dict` of a file."""
        if not files:
            raise KoaError("no files were given; pass [handle_file('a.png'), handle_file('more.zip')].")
        done = batch.grade_all(self._grader, [Path(file) for file in files], self._limits)
        return [row.outcome.to_dict() for rows in done for row in rows]

    def _read(self, image: str | None) -> Radiograph:
        if not image:
            raise KoaError("no X-ray was given; pass handle_file('knee.png').")
        return read(image, max_pixels=self._limits.pixels)
