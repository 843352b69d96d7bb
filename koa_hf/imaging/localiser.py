"""Knee localisation: find the knees on a radiograph, and crop them with the framing of the training images.

    for knee in localiser.find_knees(film):
        grading = grader.grade(localiser.crop(film, knee.box))

The method follows Tiulpin et al. 2017 (https://arxiv.org/abs/1701.08991): HOG features under a multi-scale sliding
window, scored by a linear classifier. Candidates are then moved and scaled by linear regression on finer features,
twice, and scored again. HOG is blind to polarity, so knees are found on negatives, too. Fitted by
`train/fit_localiser.py` on composites of the release's crops; results in `results/localiser`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import expit

from koa_hf.imaging import collimation, laterality, orientation
from koa_hf.imaging.hog import hog
from koa_hf.imaging.radiograph import Radiograph

WEIGHTS_FILE = Path(__file__).with_name("localiser.safetensors")

MOST_KNEES = 2

COARSE_CELLS, COARSE_CELL = 8, 4
"""Sliding window: cells per side, and a cell's width in pixels of the downscaled film."""

FINE_CELLS, FINE_CELL, CONTEXT = 12, 8, 1
"""Refinement: cells per side of the knee's box, a cell's width in pixels, and cells of context around the box."""

SMALLEST, LARGEST = 0.14, 2.0
"""Range of knee widths, relative to the film's shorter side: from a full-leg film to a strip of the joint line."""

_LEAST_PIXELS = 40  # narrower knees can't be graded
_STEP = 2**0.25  # ratio of successive widths of the sliding window
_BEYOND = 2  # cells by which the sliding window may extend beyond the film
_CANDIDATES = 6
_REFINED = 3  # candidates kept after the first refinement
_OVERLAP = 0.35  # share of the smaller box's area; boxes that overlap more show the same knee
_LEAST_SIDE = 24  # pixels; a smaller film is not searched
_SQUARE = 1.25  # largest aspect ratio of a film that may be a crop as in the release
_ALIKE = 1.4  # largest ratio of the widths of two knees on one film
_LEVEL = 0.7  # largest vertical offset of two knees on one film, in widths of the larger
_SURE = 0.9  # at this score the upside-down search is skipped; its own finds need as much
_LONGEST = 20  # largest aspect ratio of a film

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class KneeBox:
    """One knee on a film.

    Attributes:
        box: left, top, right, bottom in the film's pixels, as in Pillow. Square, and may extend beyond the film; the
            film itself if `whole`.
        side: `right` or `left` as `koa_hf.imaging.laterality` decides; None where it is uncertain.
        score: probability that this is a knee, 0.5 to 1 (calibrated on held-out composites); down to 0 if `whole`.
        whole: the film is framed as in the release, and is graded uncropped.
        side_by_user: somebody who looked at the film said which side it is.
        cautions: sentences about contradictions between what tells the side.
    """

    box: Box
    side: str | None
    score: float
    whole: bool
    side_by_user: bool = False
    cautions: tuple[str, ...] = ()


def find_knees(film: Radiograph) -> tuple[KneeBox, ...]:
    """Find the knees on a film: at most two, from the film's left to its right; empty if there is none.

    Uniform borders are ignored. A film that shows one knee framed as in the release is `whole`.

    If no find scores 0.9, the film is also searched rotated by 180 degrees. Those finds count if one scores 0.9 and
    `orientation.is_upside_down` agrees. Boxes always refer to the film as given, sides to the upright film.
    """
    finder = _finder()
    found = finder.find(film)
    if _surest(found) >= _SURE:
        return found
    upside_down = finder.find(orientation.rotated(film, 2))
    if _surest(upside_down) < _SURE:
        return found
    shape = film.pixels.shape
    knees = [dataclasses.replace(knee, box=turned_box(knee.box, shape)) for knee in reversed(upside_down)]
    best = max(knees, key=lambda knee: knee.score)
    return tuple(knees) if orientation.is_upside_down(crop(film, best.box).pixels) else found


def find_upright(film: Radiograph) -> tuple[Radiograph, tuple[KneeBox, ...]]:
    """The film, turned by 90 degrees and with a note if it lies on its side, and its knees as `find_knees`.

    It counts as lying on its side if no knee on it as given scores 0.9, one does once it is turned, and that one is not
    upside down.
    """
    knees = find_knees(film)
    if _surest(knees) >= _SURE:
        return film, knees
    turned = [orientation.rotated(film, quarters) for quarters in (1, 3)]
    found = [_finder().find(one) for one in turned]
    best = max((0, 1), key=lambda i: _surest(found[i]))
    if _surest(found[best]) < _SURE:
        return film, knees
    surest = max(found[best], key=lambda knee: knee.score)
    if orientation.is_upside_down(crop(turned[best], surest.box).pixels):
        return film, knees
    direction = ("counter-clockwise", "clockwise")[best]
    note = f"The film lies on its side; it was turned by 90 degrees {direction}, and so are its boxes."
    return dataclasses.replace(turned[best], notes=(*film.notes, note)), found[best]


def with_sides(film: Radiograph, knees: Sequence[KneeBox]) -> tuple[KneeBox, ...]:
    """Knees boxed by hand, from the film's left to its right; where `side` is None it is decided as for found ones."""
    if not knees or len(knees) > MOST_KNEES:
        return tuple(knees)
    upside_down = orientation.is_upside_down(crop(film, knees[0].box).pixels)
    upright = orientation.rotated(film, 2) if upside_down else film
    boxes = [turned_box(knee.box, film.pixels.shape) if upside_down else knee.box for knee in knees]
    order = sorted(range(len(boxes)), key=lambda i: boxes[i][0] + boxes[i][2])
    sides, cautions = _finder().sides(upright, [boxes[i] for i in order])
    decided = dict(zip(order, sides, strict=True))
    return tuple(
        knee if knee.side else dataclasses.replace(knee, side=decided[i], cautions=cautions)
        for i, knee in enumerate(knees)
    )


def turned_box(box: Box, shape: tuple[int, int]) -> Box:
    """A box on a film of this (height, width), once the film is rotated by 180 degrees."""
    (left, top, right, bottom), (height, width) = box, shape
    return width - right, height - bottom, width - left, height - top


def _surest(knees: tuple[KneeBox, ...]) -> float:
    return max((knee.score for knee in knees), default=0.0)


def crop(film: Radiograph, box: Box) -> Radiograph:
    """Crop a film to the part of a box that lies on it, keeping its metadata.

    Nothing is filled up: repeated edge pixels keep more grades on strips cut from crops of the release, and cost many
    on real strips of another hospital (docs/results.md, "Strips").

    Raises:
        ValueError: nothing of the film is in the box.
    """
    height, width = film.pixels.shape
    left, top = (max(round(edge), 0) for edge in box[:2])
    right, bottom = min(round(box[2]), width), min(round(box[3]), height)
    if right <= left or bottom <= top:
        raise ValueError(f"box {tuple(box)} has nothing of a film of {width}x{height} pixels in it")
    if (left, top, right, bottom) == (0, 0, width, height):
        return film
    return dataclasses.replace(film, pixels=film.pixels[top:bottom, left:right])


class Views:
    """An image pyramid of a film, from which windows of any size are resampled quickly.

    Windows are float64 (n, 3): x and y of the centre and width, in pixels of the film.
    """

    def __init__(self, grey: np.ndarray):
        """`grey` is uint8 (height, width)."""
        self.height, self.width = grey.shape
        sample = grey[:: max(1, self.height // 256), :: max(1, self.width // 256)]
        low, high = np.percentile(sample, (1, 99))
        self._low, self._range = float(low), max(float(high - low), 1.0)
        self._octaves = [Image.fromarray(np.ascontiguousarray(grey))]
        while min(self._octaves[-1].size) >= 2 * COARSE_CELL * COARSE_CELLS:
            self._octaves.append(self._octaves[-1].reduce(2))
        self._arrays = [np.asarray(image) for image in self._octaves]

    @property
    def whole(self) -> np.ndarray:
        """The square window with the film's centre and area, (3,)."""
        return np.array([self.width / 2, self.height / 2, math.sqrt(self.width * self.height)])

    @property
    def nearly_square(self) -> bool:
        """True if the film's aspect ratio may be that of a crop as in the release."""
        return max(self.height, self.width) <= _SQUARE * min(self.height, self.width)

    def levels(self, pixels: np.ndarray) -> np.ndarray:
        """Grey levels as float32, scaled so that the film's 1st percentile is 0 and its 99th is 1."""
        return (pixels.astype(np.float32) - np.float32(self._low)) / np.float32(self._range)

    def scaled(self, scale: float) -> np.ndarray:
        """The whole film at `scale` times its size: float32 (height, width), as `levels`."""
        image = self._octaves[min(max(math.floor(-math.log2(scale)), 0), len(self._octaves) - 1)]
        size = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
        return self.levels(np.asarray(image.resize(size, Image.Resampling.BILINEAR)))

    def windows(self, windows: np.ndarray, pixels: int) -> np.ndarray:
        """Windows of the film, resized, edge pixels repeated: float32 (n, pixels, pixels), as `levels`."""
        found = np.empty((len(windows), pixels, pixels), np.uint8)
        for number, (x, y, width) in enumerate(windows):
            octave = min(max(math.floor(math.log2(max(width / pixels, 1))), 0), len(self._octaves) - 1)
            reduced = self._arrays[octave]
            scale = reduced.shape[1] / self.width
            left, top, side = (x - width / 2) * scale, (y - width / 2) * scale, width * scale
            first_column, first_row = math.floor(left) - 2, math.floor(top) - 2
            length = math.ceil(side) + 5
            rows = np.arange(first_row, first_row + length).clip(0, reduced.shape[0] - 1)
            columns = np.arange(first_column, first_column + length).clip(0, reduced.shape[1] - 1)
            part = Image.fromarray(reduced[np.ix_(rows, columns)])
            box = (left - first_column, top - first_row, left - first_column + side, top - first_row + side)
            found[number] = np.asarray(part.resize((pixels, pixels), Image.Resampling.BILINEAR, box=box))
        return self.levels(found)


def coarse_features(views: Views, windows: np.ndarray) -> np.ndarray:
    """The sliding window's features, for single windows: float32 (n, cells, cells, bins)."""
    cells = COARSE_CELLS + 2  # HOG normalises a cell by its neighbours
    seen = views.windows(windows * (1, 1, cells / COARSE_CELLS), cells * COARSE_CELL)
    return hog(seen, COARSE_CELL)[:, 1:-1, 1:-1]


def fine_features(views: Views, windows: np.ndarray) -> np.ndarray:
    """The refinement's features: float32 (n, cells, cells, bins), with `CONTEXT` cells around the window."""
    cells = FINE_CELLS + 2 * CONTEXT + 2
    seen = views.windows(windows * (1, 1, cells / FINE_CELLS), cells * FINE_CELL)
    return hog(seen, FINE_CELL)[:, 1:-1, 1:-1]


def flattened(features: np.ndarray) -> np.ndarray:
    """Features as rows for the linear models: (n, ...) -> (n, features), also for n = 0."""
    return features.reshape(len(features), math.prod(features.shape[1:]))


def moved(windows: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Windows moved by (n, 3): x and y in window widths, and the log of the ratio of widths."""
    x, y, width = windows.T
    return np.stack([x + by[:, 0] * width, y + by[:, 1] * width, width * np.exp(by[:, 2])], axis=1)


def overlaps(window: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Intersection over union of a window (3,) with others (n, 3)."""
    shared = _shared(window, windows)
    return shared / (windows[:, 2] ** 2 + window[2] ** 2 - shared)


def _shared(window: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Area of intersection."""
    smaller = np.minimum(windows[:, 2:], window[2])
    reach = (windows[:, 2:] + window[2]) / 2 - np.abs(windows[:, :2] - window[:2])
    return np.minimum(reach, smaller).clip(0).prod(1)


def distinct(windows: np.ndarray, scores: np.ndarray, most: int) -> np.ndarray:
    """Non-maximum suppression: indices of at most `most` windows, best first."""
    kept: list[int] = []
    left = np.argsort(-scores, kind="stable")
    while len(left) and len(kept) < most:
        best = left[0]
        kept.append(int(best))
        smaller = np.minimum(windows[left, 2], windows[best, 2]) ** 2
        left = left[_shared(windows[best], windows[left]) <= _OVERLAP * smaller]
    return np.array(kept, int)


def slide(views: Views, weights: np.ndarray, bias: float, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Sliding-window search over all sizes and positions.

    Args:
        weights: float32 (cells, cells, bins); a window's score is their inner product with its `coarse_features`, plus
            `bias`.
        threshold: windows that score more are returned.

    Returns:
        windows (n, 3) and scores (n,).
    """
    shorter = min(views.height, views.width)
    largest = min(LARGEST * shorter, 1.2 * max(views.height, views.width))
    pixels = COARSE_CELLS * COARSE_CELL
    windows, scores = [], []
    width = max(SMALLEST * shorter, _LEAST_PIXELS)
    while width <= max(largest, _LEAST_PIXELS):
        scale = pixels / width
        grey = np.pad(views.scaled(scale), (_BEYOND + 1) * COARSE_CELL, mode="edge")
        features = hog(grey[None], COARSE_CELL)[0, 1:-1, 1:-1]
        if min(features.shape[:2]) >= COARSE_CELLS:
            seen = np.lib.stride_tricks.sliding_window_view(features, (COARSE_CELLS, COARSE_CELLS), (0, 1))
            score = np.einsum("ijbkl,klb->ij", seen, weights, optimize=True) + bias
            row, column = np.nonzero(score > threshold)
            centre = (np.stack([column, row], 1) - _BEYOND + COARSE_CELLS / 2) * COARSE_CELL / scale
            windows.append(np.column_stack([centre, np.full(len(row), width)]))
            scores.append(score[row, column])
        width *= _STEP
    return np.concatenate(windows) if windows else np.empty((0, 3)), np.concatenate(scores) if scores else np.empty(0)


@dataclass(frozen=True)
class Finder:
    """The fitted linear models.

    Attributes:
        slide_weight, slide_bias, slide_least: sliding-window classifier, (cells, cells, bins) and a scalar, and the
            threshold of its score for candidates.
        move_weight, move_bias: the two box regressions on fine features, (2, features, 3) and (2, 3); see `moved`.
        knee_weight, knee_bias: logit of being a knee, (features,) and a scalar.
        side_weight, side_bias, side_least: logit of being a right knee, from the window without context: flattened
            (cells, cells, bins) and a scalar; laterality is None while its absolute value is below the last.
        whole_overlap, whole_least: a film is framed as in the release if the knee's window has at least this
            intersection over union with it, and at least this logit.
    """

    slide_weight: np.ndarray
    slide_bias: float
    slide_least: float
    move_weight: np.ndarray
    move_bias: np.ndarray
    knee_weight: np.ndarray
    knee_bias: float
    side_weight: np.ndarray
    side_bias: float
    side_least: float
    whole_overlap: float
    whole_least: float

    @classmethod
    def load(cls, path: Path) -> "Finder":
        tensors: dict[str, Any] = {name: tensor.astype(np.float32) for name, tensor in load_file(path).items()}
        return cls(**{name: tensor if tensor.ndim else float(tensor) for name, tensor in tensors.items()})

    def find(self, film: Radiograph) -> tuple[KneeBox, ...]:
        """See `find_knees`."""
        grey, (x0, y0, *_) = collimation.trim(film.pixels)
        height, width = grey.shape
        if min(height, width) < _LEAST_SIDE or max(height, width) > _LONGEST * min(height, width):
            return ()
        views = Views(grey)
        candidates = self.candidates(views)
        if not len(candidates):
            return ()
        windows, logits, features = self.look(views, candidates)
        outside = ((windows[:, :2] < 0) | (windows[:, :2] > (width, height))).any(1)
        logits = np.where(outside, -np.inf, logits)
        right = self.right(features)
        if views.nearly_square:
            best = int(np.argmax(logits))
            if overlaps(views.whole, windows[[best]])[0] >= self.whole_overlap and logits[best] >= self.whole_least:
                whole = grey.shape == film.pixels.shape
                box = (0, 0, width, height) if whole else _box(views.whole, x0, y0)
                (side,), cautions = self._decide(right[[best]], film)
                return (KneeBox(box, side, float(expit(logits[best])), whole, cautions=cautions),)
        kept = distinct(windows, logits, MOST_KNEES)
        kept = kept[logits[kept] >= 0]
        if len(kept) == 2 and not _paired(*windows[kept]):
            kept = kept[:1]
        if not len(kept):
            return ()
        kept = kept[np.argsort(windows[kept, 0])]
        sides, cautions = self._decide(right[kept], film)
        return tuple(
            KneeBox(_box(windows[i], x0, y0), side, float(expit(logits[i])), whole=False, cautions=cautions)
            for i, side in zip(kept, sides, strict=True)
        )

    def sides(self, film: Radiograph, boxes: Sequence[Box]) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
        """Sides of the knees in one or two boxes, left to right on an upright film, and cautions."""
        windows = [((left + right) / 2, (top + bottom) / 2, right - left) for left, top, right, bottom in boxes]
        return self._decide(self.right(fine_features(Views(film.pixels), np.array(windows))), film)

    def _decide(self, right: np.ndarray, film: Radiograph) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
        return laterality.decide(right.tolist(), self.side_least, film.side, film.orientation)

    def candidates(self, views: Views) -> np.ndarray:
        """Candidate windows: the sliding window's, and the film itself if it is nearly square."""
        windows, scores = slide(views, self.slide_weight, self.slide_bias, self.slide_least)
        windows = windows[distinct(windows, scores, _CANDIDATES)]
        if views.nearly_square:
            windows = np.vstack([windows, views.whole])
        return windows

    def look(self, views: Views, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Refine windows: the best of them, moved onto their knees, their logits (n,) and their `fine_features`."""
        features = fine_features(views, windows)
        windows = moved(windows, self.correction(0, features))
        if len(windows) > _REFINED:
            windows = windows[np.argsort(-self.logit(features), kind="stable")[:_REFINED]]
        windows = moved(windows, self.correction(1, fine_features(views, windows)))
        features = fine_features(views, windows)
        return windows, self.logit(features), features

    def correction(self, step: int, features: np.ndarray) -> np.ndarray:
        """Regressed shifts of windows with these fine features, (n, 3), clipped to 0.4; see `moved`."""
        by = flattened(features) @ self.move_weight[step] + self.move_bias[step]
        return by.clip(-0.4, 0.4)

    def logit(self, features: np.ndarray) -> np.ndarray:
        """Logit of being a knee, (n,)."""
        return flattened(features) @ self.knee_weight + self.knee_bias

    def right(self, features: np.ndarray) -> np.ndarray:
        """Logit of being a right knee, (n,)."""
        inner = features[:, CONTEXT:-CONTEXT, CONTEXT:-CONTEXT]
        return flattened(inner) @ self.side_weight + self.side_bias


@functools.cache
def _finder() -> Finder:
    return Finder.load(WEIGHTS_FILE)


def _paired(one: np.ndarray, other: np.ndarray) -> bool:
    """True if two windows can be a pair of knees: similar in size, level on the film."""
    small, large = sorted((one[2], other[2]))
    return large <= _ALIKE * small and abs(one[1] - other[1]) <= _LEVEL * large


def _box(window: np.ndarray, x0: int, y0: int) -> Box:
    """A window of the trimmed film as a square in whole pixels of the film."""
    x, y, width = window
    side = max(1, round(width))
    left, top = round(x0 + x - side / 2), round(y0 + y - side / 2)
    return left, top, left + side, top + side
