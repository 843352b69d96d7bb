"""A grading to keep: as JSON, as a row of a CSV file, as a one-page PDF, and as that page's picture.

    python -m koa_hf.report.document knee.png --pdf report.pdf
    python -m koa_hf.report.document knee.png --model user/koa-xception --pdf report.pdf --json report.json
    python -m koa_hf.report.document knee.dcm --dicom report.dcm

No patient identity is read or shown: the input file is told by its name and its SHA-256. The PDF is drawn with
matplotlib, which is needed for the heat map anyway, brings fonts with most alphabets of Europe and the Middle East, and
draws the same page as a picture. The same grading at the same time gives the same bytes.

With --dicom, the page becomes a secondary capture in the study of an X-ray that is itself DICOM.
"""

import argparse
import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from koa_hf import __version__
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import replacing
from koa_hf.grades import NUM_GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading.grader import Grader, Grading, percent
from koa_hf.imaging import dicom, radiograph
from koa_hf.imaging.radiograph import Radiograph

SCHEMA = "koa-grading/1"
"""Changes its number when a key goes away or changes its meaning; keys may be added under the same number."""

JSON_KEYS = {
    "schema": f'"{SCHEMA}"',
    "time": "when the report was made, ISO 8601, UTC, whole seconds",
    "notice": "the research-use notice, to be shown with every result",
    "source": "the input file's name",
    "sha256": "SHA-256 of the input file, 64 hexadecimal digits",
    "side": "right or left, where the file or the finder of knees says so; else null",
    "view": "AP, PA or lateral, where the file says so; else null",
    "notes": "sentences about choices made in reading the file",
    "box": "the part of the film that was graded, [left, top, right, bottom] in pixels; null: the whole image",
    "grade": "KL grade, 0 to 4, as the model's rules read it from the probabilities",
    "name": "its name: none, doubtful, minimal, moderate or severe",
    "probabilities": "five numbers, KL 0 to 4, that sum to 1",
    "calibrated": "whether they were calibrated on knees that the network wasn't trained on",
    "expected_grade": "the mean of the probabilities on the scale from 0 to 4",
    "grade_set": "[lowest, highest] grade of the prediction set; null: the model gives none",
    "coverage": "the share of knees whose reader's grade that set is built to hold, 0 to 1; null: no set",
    "familiar": "whether the X-ray is like the training knees; null: the model can't tell",
    "unfamiliarity": "its distance from them, over 1: unlike; null: the model can't tell",
    "inverted": "whether the X-ray was a photographic negative, which was righted before grading",
    "turned": "whether the X-ray was upside down, and was turned by 180 degrees before grading",
    "certainty": "one phrase on how far ahead of the others the grade is",
    "model": "the model's folder or Hub id",
    "revision": "its Hub commit, or the beginning of its weights' SHA-256",
    "model_note": "what the model's maker wants every user to read; may be empty",
    "seconds": "how long grading took",
}
"""The keys of `Report.to_dict`, in order, and what they hold."""

COLUMNS = (
    "file",
    "grade",
    "name",
    *(f"p{g}" for g in range(NUM_GRADES)),
    "expected_grade",
    "grade_low",
    "grade_high",
    "familiar",
    "inverted",
    "turned",
    "side",
    "box",
    "error",
)
"""The columns of the CSV; `grade_low` and `grade_high` are the prediction set, `box` as in `Report`."""


@dataclass(frozen=True)
class Report:
    """One grading and what was graded.

    `xray` is the knee as it was read, not yet righted. `sha256` is that of the input file. `time` is aware
    of its time zone. Where the knee was found in a larger film, `film` is that film as read, uint8 (height, width), and
    `box` the knee's (left, top, right, bottom) in its pixels. `model_note` is `Grader.note`.
    """

    grading: Grading
    xray: Radiograph
    sha256: str
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    film: np.ndarray | None = None
    box: tuple[int, int, int, int] | None = None
    model_note: str = ""

    def to_dict(self) -> dict:
        """Everything but the pictures, in types that JSON has, with the keys of `JSON_KEYS`."""
        values = self.grading.to_dict() | {
            "schema": SCHEMA,
            "time": self.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "notice": RESEARCH_USE_NOTICE,
            "sha256": self.sha256,
            "side": self.xray.side,
            "view": self.xray.view,
            "notes": list(self.xray.notes),
            "box": self.box and [int(edge) for edge in self.box],
            "certainty": self.grading.certainty,
            "model_note": self.model_note,
        }
        return {key: values[key] for key in JSON_KEYS}

    def json(self) -> str:
        """`to_dict` as a JSON document. Pure ASCII, so that a file name with stray bytes in it can't break it."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def pdf(self) -> bytes:
        """The report as a PDF of one A4 page."""
        # Imported here: matplotlib's drawing takes long to import, and few look at a result on paper.
        from koa_hf.report import pdf_page

        buffer = io.BytesIO()
        about = {
            "Title": f"Knee X-ray grading: KL {self.grading.grade}",
            "Subject": RESEARCH_USE_NOTICE,
            "Creator": f"koa-hf {__version__}",
            "CreationDate": self.time.astimezone(UTC),
        }
        pdf_page.draw(self, pdf_page.PDF_DPI).savefig(buffer, format="pdf", metadata=about)
        return buffer.getvalue()

    def picture(self, dpi: int = 150) -> Image.Image:
        """The same page as an RGB picture, 1240 x 1753 pixels at 150 dots an inch."""
        from koa_hf.report import pdf_page

        return pdf_page.picture(self, dpi)


def range_sentence(grading: Grading) -> str:
    """The grade with its prediction set, e.g. `KL 2, could be KL 1 to 3 (90% coverage)`."""
    if grading.grade_set is None:
        return f"KL {grading.grade}"
    return f"KL {grading.grade}, {grading.range_in_words} ({percent(grading.coverage)} coverage)"


def as_row(
    file: Path, outcome: Grading | str, side: str | None = None, box: tuple[int, int, int, int] | None = None
) -> dict:
    """One row of the CSV; an unreadable file has only its name and the error."""
    if isinstance(outcome, str):
        return {"file": str(file), "error": outcome}
    low, high = outcome.grade_set or ("", "")
    return {
        "file": str(file),
        "grade": outcome.grade,
        "name": outcome.name,
        **{f"p{g}": f"{p:.6f}" for g, p in enumerate(outcome.probabilities)},
        "expected_grade": f"{outcome.expected_grade:.4f}",
        "grade_low": low,
        "grade_high": high,
        "familiar": {True: "true", False: "false", None: ""}[outcome.familiar],
        "inverted": "true" if outcome.inverted else "false",
        "turned": "true" if outcome.turned else "false",
        "side": side or "",
        "box": " ".join(map(str, box or ())),
        "error": "",
    }


@contextmanager
def csv_writer(path: Path | None) -> Iterator[csv.DictWriter | None]:
    """Rows go to a temporary name beside `path`; the file appears, or is replaced, once all are written."""
    if path is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            if path.is_dir():
                raise IsADirectoryError(None, "it is a folder")
            partial = stack.enter_context(replacing(path))
            # A file name may hold bytes that are no UTF-8; they are written as \udc.., and don't stop the others.
            opened = stack.enter_context(partial.open("w", newline="", encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            raise KoaError(f"{path} can't be written: {error.strerror or error}.") from error
        writer = csv.DictWriter(opened, COLUMNS)
        writer.writeheader()
        yield writer


@exit_2_on_bad_input
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m koa_hf.report.document",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("xray", type=Path, metavar="FILE", help="one knee X-ray")
    parser.add_argument("--model", help="model folder or Hub id; by default KOA_MODEL, else the bundled model")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, ...; by default a GPU where there is one")
    parser.add_argument("--pdf", type=Path, metavar="OUT", help="write the page there")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there")
    parser.add_argument("--dicom", type=Path, metavar="OUT", help="write a secondary capture there; FILE must be DICOM")
    options = parser.parse_args(arguments)
    outputs = [path for path in (options.pdf, options.json, options.dicom) if path]
    if not outputs:
        raise KoaError("say what to write: --pdf, --json or --dicom, each with a file.")
    if len(set(outputs)) < len(outputs):
        raise KoaError("two outputs can't go to one file; give each its own.")
    for path in outputs:  # before the model is loaded: a bad path shouldn't cost that wait
        if path.is_dir() or not path.parent.is_dir():
            raise KoaError(f"{path} can't be written: it is a folder, or its folder doesn't exist.")
        if path.exists() and options.xray.exists() and path.samefile(options.xray):
            raise KoaError(f"{path} is the X-ray itself; write the report somewhere else.")

    try:
        file = options.xray.read_bytes()
    except OSError as error:
        raise KoaError(f"{options.xray} can't be read: {error.strerror or error}.") from error
    if options.dicom and not dicom.is_dicom(file):
        raise KoaError(f"{options.xray} is not DICOM, which --dicom needs; write a PDF.")
    xray = radiograph.read(file, name=options.xray.name)  # what is hashed is what is graded
    grader = Grader.from_pretrained(options.model, options.revision, options.device)
    grading = grader.grade(xray)
    report = Report(grading, xray, hashlib.sha256(file).hexdigest(), model_note=grader.note)
    made = {}
    if options.pdf:
        made[options.pdf] = report.pdf()
    if options.json:
        made[options.json] = report.json().encode()
    if options.dicom:
        # Imported here: it takes most of a second, and nobody without DICOM needs it.
        from koa_hf.report.secondary_capture import secondary_capture

        made[options.dicom] = secondary_capture(file, grading, report.picture())
    for path, content in made.items():
        try:
            with replacing(path) as partial:
                partial.write_bytes(content)
        except OSError as error:
            raise KoaError(f"{path} can't be written: {error.strerror or error}.") from error
    said = f"{grading.source}: {range_sentence(grading)}; written to {', '.join(map(str, made))}"
    print(said.encode(errors="backslashreplace").decode())  # a file name may hold bytes that are no UTF-8
    if grading.familiar is False:
        print("Not certain: this image is unlike the training knees.")
    for remark in filter(None, (grader.note, RESEARCH_USE_NOTICE)):
        print(remark, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
