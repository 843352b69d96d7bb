"""Training films of the localiser: composites of the train split's crops, with the windows of their knees."""

from collections.abc import Sequence

import numpy as np
from datasets import DatasetDict

from koa_hf.errors import KoaError
from koa_hf.grades import NUM_GRADES
from koa_hf.imaging import collimation, phantom
from koa_hf.imaging.localiser import Views
from train.fitting.localiser_training import AnnotatedFilm, LocaliserTrainingSet, map_with_progress
from train.loop.knee_images import choose_split
from train.pictures.composites import BOTH, KINDS, Composite, Crop, compose, mirrored

KIND_SHARES = (0.3, 0.3, 0.1, 0.1, 0.1, 0.1)  # of KINDS, among the training films
PHANTOMS = 0.08  # share of drawn knees, since the demo's examples are drawn
CROP_WIDTHS = (80, 150)  # of the crops on the films, pixels
OTHER_KINDS = (
    "texture",
    "photograph",
    "white noise",
    "smooth noise",
    "text page",
    "CT slice",
    "chest X-ray",
    "leg X-ray",
    "drawn hand X-ray",
)
"""Kinds of `train.pictures.not_knees` to train on as pictures without a knee; the others are left for the benchmark."""

_HELD_OUT = 0.1  # share of the train split's patients, for thresholds and Platt scaling

KneePair = tuple[Crop, Crop]
"""A patient's right and left knee."""


def annotated(composite: Composite) -> AnnotatedFilm:
    """A composite with its collimation trimmed, and its boxes as windows."""
    grey, (x0, y0, _, _) = collimation.trim(composite.pixels)
    left, top, right, bottom = np.array(composite.boxes, float).T
    knees = np.column_stack([(left + right) / 2 - x0, (top + bottom) / 2 - y0, right - left])
    return AnnotatedFilm(Views(grey), knees, composite.sides)


def draw_film(pairs: Sequence[KneePair], seed: tuple[int, ...]) -> Composite:
    """A random training composite: of any kind, of any knee or its mirror image, or of a drawn one."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(KINDS, p=KIND_SHARES))
    if rng.random() < PHANTOMS:
        grade, drawn = int(rng.integers(NUM_GRADES)), int(rng.integers(2**31))
        pair = [Crop(phantom.draw_knee(grade, drawn, side), side) for side in ("right", "left")]
    else:
        pair = list(pairs[rng.integers(len(pairs))])
    if rng.random() < 0.5:
        pair = [mirrored(crop) for crop in pair[::-1]]
    if not (kind in BOTH or (kind == "collimated" and rng.random() < 0.5)):
        pair = [pair[rng.integers(2)]]
    return compose(kind, pair, rng, int(rng.integers(*CROP_WIDTHS)))


def draw_training_films(
    pairs: Sequence[KneePair], number: int, others: Sequence[np.ndarray], seed: int
) -> LocaliserTrainingSet:
    """The training set of a finder.

    Args:
        pairs: knees of the train split, by patient.
        number: films to draw.
        others: pictures without a knee, uint8 (height, width).
    """
    order = np.random.default_rng(seed).permutation(len(pairs))
    held_out = max(1, round(_HELD_OUT * len(pairs)))
    apart, fitted = [pairs[i] for i in order[:held_out]], [pairs[i] for i in order[held_out:]]
    numbered = [(fitted, (seed, 0, i)) for i in range(number)] + [(apart, (seed, 1, i)) for i in range(number // 6)]
    films = map_with_progress("drawing films", numbered, lambda item: annotated(draw_film(*item)))
    return LocaliserTrainingSet(
        films[:number],
        films[number:],
        [AnnotatedFilm(Views(collimation.trim(picture)[0]), np.empty((0, 3)), ()) for picture in others],
        [Views(crop.pixels) for pair in apart for crop in pair],
    )


def knee_pairs(data: DatasetDict, split: str, source: str) -> list[KneePair]:
    """Both knees of each patient of a split who has both, sorted by patient; `source` names the data set in messages.

    Raises:
        KoaError: no such split, or no patient with both knees.
    """
    knees: dict[str, dict[str, Crop]] = {}
    for row in choose_split(data, split, source):
        crop = Crop(np.asarray(row["image"].convert("L")), row["side"])
        knees.setdefault(row["patient_id"], {})[crop.side] = crop
    pairs = [(knees[patient]["right"], knees[patient]["left"]) for patient in sorted(knees) if len(knees[patient]) == 2]
    if not pairs:
        raise KoaError(f"the {split} split of {source} has no patient with both knees.")
    return pairs
