"""The demo's endpoints for programs, which are MCP tools as well: functions, their descriptions and their results."""

from pathlib import Path

from koa_hf.demo import batch
from koa_hf.demo.batch import Limits
from koa_hf.errors import KoaError
from koa_hf.files import write_apart
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.examination import Examination, examine
from koa_hf.grading.result import FileResult, Grading, KneeGrader, NotGraded
from koa_hf.imaging import archive
from koa_hf.imaging.radiograph import read
from koa_hf.report import evidence
from koa_hf.report.document import Report

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
    "heat_map": "Find the knees in an X-ray and show where the Kellgren-Lawrence grade of each comes from. Returns a "
    "PNG picture: the knees from the image's left to its right, each with the evidence for its grade painted over it. "
    f"{_UNREADABLE} {RESEARCH_USE_NOTICE}",
    "report": "Find the knees in an X-ray, grade each on the Kellgren-Lawrence scale, and write a report. Returns a "
    f"PDF file with a page for each knee. {_UNREADABLE} {RESEARCH_USE_NOTICE}",
}
"""By the name of the endpoint."""


def _schema(result: type[FileResult]) -> dict:
    """The JSON schema of `to_dict`; without `additionalProperties: false`, which Gradio can't put in words."""
    schema = result.model_json_schema(mode="serialization")
    return {key: value for key, value in schema.items() if key != "additionalProperties"}


SCHEMAS = {
    "grade": _schema(Grading),
    "grade_film": {"type": "array", "items": _schema(Grading)},
    "grade_many": {"type": "array", "items": {"anyOf": [_schema(Grading), _schema(NotGraded)]}},
}
"""JSON schemas of the results that are no files, by the name of the endpoint."""


class Api:
    """The endpoints. Files are given by their paths on the server.

    Each raises `KoaError` for a file that can't be graded.

    Args:
        files: folder for pictures and reports, emptied by whoever serves the page.
    """

    def __init__(self, grader: KneeGrader, limits: Limits, files: Path):
        self._grader = grader
        self._limits = limits
        self._files = files

    def grade(self, image: str) -> dict:
        """`Grading.to_dict` of an image, graded as a whole."""
        return self._examined(image, as_it_is=True).knees[0].grading.to_dict()

    def grade_film(self, image: str) -> list[dict]:
        """`Grading.to_dict` of each knee found, left to right."""
        return [knee.grading.to_dict() for knee in self._examined(image).knees]

    def grade_many(self, files: list[str]) -> list[dict]:
        """`Grading.to_dict` of each knee of each file, or `NotGraded.to_dict` of a file."""
        if not files:
            raise KoaError("no files were given; pass [handle_file('a.png'), handle_file('more.zip')].")
        done = batch.grade_all(self._grader, [self._checked(file) for file in files], self._limits)
        return [row.outcome.to_dict() for rows in done for row in rows]

    def heat_map(self, image: str) -> str:
        """Path of a PNG file, see `koa_hf.report.evidence.png`."""
        return write_apart(self._files, "heat-map.png", evidence.png(self._examined(image).knees))

    def report(self, image: str) -> str:
        """Path of a PDF file with a page for each knee."""
        # Imported here: drawing takes most of a second to import, which the start need not wait for.
        from koa_hf.report import pdf_page

        examination = self._examined(image)
        reports = [Report(knee, examination.film) for knee in examination.knees]
        return write_apart(self._files, "knee-report.pdf", pdf_page.pdf(*reports))

    def _examined(self, image: str | None, as_it_is: bool = False) -> Examination:
        if not image:
            raise KoaError("no X-ray was given; pass handle_file('knee.png').")
        path = self._checked(image)
        if archive.is_archive(path):
            raise KoaError(f"{path.name} is a zip; /grade_many opens zips.")
        return examine(self._grader, [read(path, max_pixels=self._limits.pixels)], as_it_is=as_it_is)[0]

    def _checked(self, file: str) -> Path:
        """The path of a file that isn't too large; uploads are measured as they arrive, other files are not."""
        path = Path(file)
        if not path.is_file():
            raise KoaError(f"{path.name} is no longer on the server; send it again.")
        if path.stat().st_size > self._limits.megabytes * 1e6:
            raise KoaError(f"{path.name} is larger than {self._limits.megabytes:g} MB; crop it to the knee.")
        return path
