"""From a radiograph to graded knees: find the knees, crop them, grade each.

    film = radiograph.read("film.dcm")
    for knee in examine(grader, [film])[0].knees:
        print(knee.grading.side, knee.grading.grade)

Knees are listed from the film's left to its right.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from koa_hf.errors import KoaError
from koa_hf.grading.result import Grading, KneeGrader
from koa_hf.imaging import grey_levels, localiser
from koa_hf.imaging.localiser import MOST_KNEES, KneeBox
from koa_hf.imaging.radiograph import Radiograph

SHARP = 134
"""Pixels across a knee, 0.6 of the release's crops, under which one grade in nine changes (`results/localiser`)."""


@dataclass(frozen=True)
class GradedKnee:
    """A knee and its grading.

    Attributes:
        grading: its `box` is None where the whole image was graded.
        radiograph: the knee as it was read, cropped from the film but neither inverted nor turned.
    """

    grading: Grading
    radiograph: Radiograph


@dataclass(frozen=True)
class Examination:
    """A film and its graded knees.

    Attributes:
        film: the whole image, turned by 90 degrees if it lay on its side.
        boxes: around the knees, left to right, perhaps reaching beyond the film; empty where the image was graded as it
            is.
        knees: one for each of `boxes`, or one for the whole image.
        whole: True if the image was recognised as a crop of one knee, like the training images; False where it was
            graded as it is because no knee was found in it, or because `as_it_is` was given.
    """

    film: Radiograph
    boxes: tuple[KneeBox, ...]
    knees: tuple[GradedKnee, ...]
    whole: bool


@dataclass(frozen=True)
class FoundKnees:
    """The knees of one film, cropped and not yet graded.

    Attributes:
        boxes, whole: as in `Examination`.
        crops: for each of `boxes`, or for the whole image, the radiograph to grade.
    """

    boxes: tuple[KneeBox, ...]
    whole: bool
    crops: tuple[Radiograph, ...]


def examine(
    grader: KneeGrader, films: Sequence[Radiograph], boxes: Sequence[KneeBox] | None = None, as_it_is: bool = False
) -> list[Examination]:
    """Grade every knee of some films in one forward pass.

    Args:
        boxes: where to crop every film; by default where the localiser finds knees.
        as_it_is: crop nothing, and grade each image as a whole.

    Raises:
        KoaError: more than `koa_hf.imaging.localiser.MOST_KNEES` boxes, or a box without anything of the film in it.
    """
    upright = [_find(film, boxes, as_it_is) for film in films]
    graded = grade_found(grader, [found for _, found in upright])
    return [
        Examination(film, found.boxes, knees, found.whole) for (film, found), knees in zip(upright, graded, strict=True)
    ]


def find(film: Radiograph, boxes: Sequence[KneeBox] | None = None, as_it_is: bool = False) -> FoundKnees:
    """Find the knees on a film and crop them, the part of `examine` that needs no grader; arguments and errors as
    there."""
    return _find(film, boxes, as_it_is)[1]


def _find(film: Radiograph, boxes: Sequence[KneeBox] | None, as_it_is: bool) -> tuple[Radiograph, FoundKnees]:
    """The film, turned if it lies on its side, and its knees."""
    if as_it_is:
        in_film = ()
    elif boxes is None:
        film, in_film = localiser.find_upright(film)
    else:
        for knee in boxes:
            _check_box(film, knee)
        in_film = localiser.with_sides(film, boxes)
    if len(in_film) > MOST_KNEES:
        raise KoaError(f"there are {len(in_film)} boxes; a film has at most {MOST_KNEES} knees, so remove some.")
    if len(in_film) == 1 and in_film[0].whole:
        in_film, whole, crops = (), True, [_labelled(film, in_film[0])]
    else:
        in_film, whole = tuple(sorted(in_film, key=lambda knee: knee.box[0] + knee.box[2])), False
        crops = [_labelled(localiser.crop(film, knee.box), knee) for knee in in_film] or [film]
    return film, FoundKnees(in_film, whole, tuple(map(_noted_if_small, crops)))


def grade_found(grader: KneeGrader, found: Sequence[FoundKnees]) -> list[tuple[GradedKnee, ...]]:
    """Grade the knees found on some films in one forward pass; for each film its knees."""
    radiographs = [knee for one in found for knee in one.crops]
    knees = iter(map(GradedKnee, grader.grade_batch(radiographs), radiographs))
    return [tuple(_boxed(next(knees), knee) for knee in one.boxes or [None]) for one in found]


def _boxed(knee: GradedKnee, found: KneeBox | None) -> GradedKnee:
    if found is None:
        return knee
    placed = {"box": found.box, "side_by_user": found.side_by_user}
    return dataclasses.replace(knee, grading=knee.grading.model_copy(update=placed))


def _noted_if_small(knee: Radiograph) -> Radiograph:
    pixels = knee.pixels.shape[1]
    if pixels >= SHARP:
        return knee
    note = (
        f"This knee is {pixels} pixels wide. Below {SHARP} pixels, about 1 knee in 9 gets a different grade than at "
        "full resolution."
    )
    return dataclasses.replace(knee, notes=(*knee.notes, note))


def _check_box(film: Radiograph, knee: KneeBox) -> None:
    left, top, right, bottom = knee.box
    height, width = film.pixels.shape
    if min(right, width) - max(left, 0) < 1 or min(bottom, height) - max(top, 0) < 1:
        raise KoaError("a box lies beside the film; move it onto a knee.")
    if max(right - left, bottom - top) > 2 * max(height, width):
        raise KoaError("a box is more than twice as large as the film; make it smaller.")
    if grey_levels.is_blank(localiser.crop(film, knee.box).pixels):
        raise KoaError("a box shows one grey level all over; move it onto a knee.")


def _labelled(crop: Radiograph, knee: KneeBox) -> Radiograph:
    """A crop with the side that was decided for its knee."""
    return dataclasses.replace(crop, side=knee.side, cautions=(*crop.cautions, *knee.cautions))
