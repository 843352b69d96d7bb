"""From a file to graded knees: read it, find the knees in it, grade each; what demo and API share.

    film = read(Path("film.dcm"))
    for report in examine(grader, [film])[0].reports:
        print(report.xray.side, report.grading.grade)

A film's knees are told from left to right.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from koa_hf.errors import KoaError
from koa_hf.grading.grader import Grader
from koa_hf.imaging import dicom, localiser, radiograph
from koa_hf.imaging.localiser import MOST_KNEES, Knee
from koa_hf.imaging.radiograph import MAX_PIXELS, Radiograph
from koa_hf.report.document import Report

SHARP = 134
"""Pixels across a knee, 0.6 of the release's crops, under which one grade in eight changes (`results/localiser`)."""


@dataclass(frozen=True)
class Film:
    """A file as it was read.

    Attributes:
        xray: the whole image.
        sha256: of the file.
        dicom: the file itself where it is DICOM, for a report into its study; else None.
    """

    xray: Radiograph
    sha256: str
    dicom: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self.xray.pixels.nbytes + len(self.dicom or b"")


@dataclass(frozen=True)
class Examination:
    """A film and what was found in it.

    Attributes:
        knees: where it was cut, left to right; empty where the image was graded as it is.
        reports: one for each of `knees`, or one for the whole image.
        whole: the image was taken for a crop of one knee, as the model was trained on; False where it was graded as it
            is because no knee was found in it, or because somebody asked for that.
    """

    film: Film
    knees: tuple[Knee, ...]
    reports: tuple[Report, ...]
    whole: bool


def read(source: str | os.PathLike | bytes, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Film:
    """Read a file, or its bytes, called `name` from here on.

    Raises:
        KoaError: it isn't an X-ray that can be read (see `koa_hf.imaging.radiograph.read`).
    """
    if isinstance(source, bytes):
        data, name = source, name or "uploaded file"
    else:
        name = name or Path(source).name
        try:
            data = Path(source).read_bytes()
        except FileNotFoundError as error:
            raise KoaError(f"{name} isn't there, or not any more; give it again.") from error
        except OSError as error:
            raise KoaError(f"{name} can't be read: {error.strerror or error}.") from error
    xray = radiograph.read(data, name, max_pixels)
    return Film(xray, hashlib.sha256(data).hexdigest(), data if dicom.is_dicom(data) else None)


def examine(
    grader: Grader, films: Sequence[Film], knees: Sequence[Knee] | None = None, as_it_is: bool = False
) -> list[Examination]:
    """Grade every knee in some films, in one forward pass.

    Args:
        knees: where to cut (in every film); by default where the localiser finds knees.
        as_it_is: cut nowhere, and grade each image as a whole.

    Raises:
        KoaError: more than `koa_hf.imaging.localiser.MOST_KNEES`, or a box that holds nothing of the film.
    """
    cuts, wholes = [], []
    for film in films:
        found = () if as_it_is else localiser.find(film.xray) if knees is None else tuple(knees)
        whole = len(found) == 1 and found[0].whole
        found = () if whole else found
        if len(found) > MOST_KNEES:
            raise KoaError(f"there are {len(found)} boxes; a film has at most {MOST_KNEES} knees, so remove some.")
        cuts.append(tuple(sorted(found, key=lambda knee: knee.box[0] + knee.box[2])))
        wholes.append(whole)
    # For each knee its cut and the others that are graded with it; for a film without one, the film.
    views = [
        view
        for film, found in zip(films, cuts, strict=True)
        for view in [_cuts(film.xray, k) for k in found] or [[film.xray]]
    ]
    xrays = [_told_if_small(first) for first, *_ in views]
    gradings = iter(zip(xrays, grader.grade_batch(xrays, [others for _, *others in views]), strict=True))
    examinations = []
    for film, found, whole in zip(films, cuts, wholes, strict=True):
        reports = []
        for knee in found or [None]:
            xray, grading = next(gradings)
            place = {} if knee is None else {"film": film.xray.pixels, "box": knee.box}
            reports.append(Report(grading, xray, film.sha256, model_note=grader.note, **place))
        examinations.append(Examination(film, found, tuple(reports), whole))
    return examinations


def _told_if_small(xray: Radiograph) -> Radiograph:
    pixels = min(xray.pixels.shape)
    if pixels >= SHARP:
        return xray
    note = f"This knee is {pixels} pixels wide; of knees under {SHARP}, one in eight gets another grade than in full."
    return dataclasses.replace(xray, notes=(*xray.notes, note))


def _cuts(film: Radiograph, knee: Knee) -> list[Radiograph]:
    left, top, right, bottom = knee.box
    height, width = film.pixels.shape
    if min(right, width) - max(left, 0) < 1 or min(bottom, height) - max(top, 0) < 1:
        raise KoaError("a box lies beside the film; move it onto a knee.")
    if max(right - left, bottom - top) > 2 * max(height, width):
        raise KoaError("a box is more than twice as large as the film; make it smaller.")
    side = knee.side or film.side
    return [dataclasses.replace(cut, side=side) for cut in localiser.cuts(film, knee.box)]
