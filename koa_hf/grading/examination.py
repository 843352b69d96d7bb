"""From a file to graded knees: read it, find the knees in it, grade each; what demo and API share.

    film = radiograph.read("film.dcm")
    for report in examine(grader, [film])[0].reports:
        print(report.xray.side, report.grading.grade)

A film's knees are told from left to right.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from koa_hf.errors import KoaError
from koa_hf.grading.grader import Grader
from koa_hf.imaging import localiser
from koa_hf.imaging.localiser import MOST_KNEES, KneeBox
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.report.document import Report

SHARP = 134
"""Pixels across a knee, 0.6 of the release's crops, under which one grade in eight changes (`results/localiser`)."""


@dataclass(frozen=True)
class Examination:
    """A film and what was found in it.

    Attributes:
        boxes: where it was cut, left to right; empty where the image was graded as it is.
        reports: one for each of `boxes`, or one for the whole image.
        whole: the image was taken for a crop of one knee, as the model was trained on; False where it was graded as it
            is because no knee was found in it, or because somebody asked for that.
    """

    film: Radiograph
    boxes: tuple[KneeBox, ...]
    reports: tuple[Report, ...]
    whole: bool


def examine(
    grader: Grader, films: Sequence[Radiograph], boxes: Sequence[KneeBox] | None = None, as_it_is: bool = False
) -> list[Examination]:
    """Grade every knee in some films, in one forward pass.

    Args:
        boxes: where to cut (in every film); by default where the localiser finds knees.
        as_it_is: cut nowhere, and grade each image as a whole.

    Raises:
        KoaError: more than `koa_hf.imaging.localiser.MOST_KNEES`, or a box that holds nothing of the film.
    """
    cuts, wholes = [], []
    for film in films:
        found = () if as_it_is else localiser.find_knees(film) if boxes is None else tuple(boxes)
        whole = len(found) == 1 and found[0].whole
        found = () if whole else found
        if len(found) > MOST_KNEES:
            raise KoaError(f"there are {len(found)} boxes; a film has at most {MOST_KNEES} knees, so remove some.")
        cuts.append(tuple(sorted(found, key=lambda knee: knee.box[0] + knee.box[2])))
        wholes.append(whole)
    # For each knee its cut and the others that are graded with it; for a film without one, the film.
    views = [
        view for film, found in zip(films, cuts, strict=True) for view in [_cuts(film, k) for k in found] or [[film]]
    ]
    xrays = [_told_if_small(first) for first, *_ in views]
    gradings = iter(zip(xrays, grader.grade_batch(xrays, [others for _, *others in views]), strict=True))
    examinations = []
    for film, found, whole in zip(films, cuts, wholes, strict=True):
        reports = []
        for knee in found or [None]:
            xray, grading = next(gradings)
            place = {} if knee is None else {"film": film.pixels, "box": knee.box}
            reports.append(Report(grading, xray, film.sha256, model_note=grader.note, **place))
        examinations.append(Examination(film, found, tuple(reports), whole))
    return examinations


def _told_if_small(xray: Radiograph) -> Radiograph:
    pixels = min(xray.pixels.shape)
    if pixels >= SHARP:
        return xray
    note = f"This knee is {pixels} pixels wide; of knees under {SHARP}, one in eight gets another grade than in full."
    return dataclasses.replace(xray, notes=(*xray.notes, note))


def _cuts(film: Radiograph, knee: KneeBox) -> list[Radiograph]:
    left, top, right, bottom = knee.box
    height, width = film.pixels.shape
    if min(right, width) - max(left, 0) < 1 or min(bottom, height) - max(top, 0) < 1:
        raise KoaError("a box lies beside the film; move it onto a knee.")
    if max(right - left, bottom - top) > 2 * max(height, width):
        raise KoaError("a box is more than twice as large as the film; make it smaller.")
    side = knee.side or film.side
    return [dataclasses.replace(cut, side=side) for cut in localiser.multi_scale_crops(film, knee.box)]
