"""Find the knees on a film, and cut them out as the model was trained to see them.

    for knee in localiser.find_knees(film):
        grading = grader.grade(localiser.crop(film, knee.box))

The method is near that of Tiulpin et al. 2017 (https://arxiv.org/abs/1701.08991): histograms of oriented gradients
under a sliding window, in many sizes, judged by a linear classifier. What passes is then moved and scaled by linear
regression on finer features, twice, and judged once more. The features don't know bone bright from bone dark, so
negatives are found as they are. Fitted by `train/fit_localiser.py` on composites of the release's crops;
`results/localiser` says what it is worth.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import expit

from koa_hf.imaging import collimation, orientation
from koa_hf.imaging.hog import hog
from koa_hf.imaging.radiograph import Radiograph

WEIGHTS_FILE = Path(__file__).with_name("localiser.safetensors")

MOST_KNEES = 2

COARSE_CELLS, COARSE_CELL = 8, 4
"""The sliding window: cells a side, and their width in pixels, once the film is reduced so that a knee fits it."""

FINE_CELLS, FINE_CELL, CONTEXT = 12, 8, 1
"""The second look: cells a side of the knee's box, their width in pixels, and cells around the box."""

SMALLEST, LARGEST = 0.14, 2.0
"""Width of the knees looked for, in the film's shorter side: from a full-leg film to a strip of the joint line."""

BOX_MARGIN = 0.06
"""By how much of its size a box is made smaller and larger in `multi_scale_crops`."""

_LEAST_PIXELS = 40  # a knee narrower than this can't be graded
_STEP = 2**0.25  # from one size of the sliding window to the next
_BEYOND = 2  # cells by which the sliding window may reach beyond the film
_CANDIDATES = 6
_REFINED = 3  # candidates that are left after the first of the finer looks
_OVERLAP = 0.35  # of the smaller one's area: two boxes that share more show the same knee
_LEAST_SIDE = 24  # of a film, pixels
_SQUARE = 1.25  # a crop as in the release may be so much longer than wide, or wider than long
_ALIKE = 1.4  # two knees of one film differ in width by less than this factor,
_LEVEL = 0.7  # and in height on the film by less than this share of their width
_SURE = 0.9  # score from which nobody asks whether the film is upside down, and which it takes to say so
_LONGEST = 20  # longer side in shorter ones; what is more is a stripe, and no film

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class KneeBox:
    """One knee on a film.

    Attributes:
        box: left, top, right, bottom in the film's pixels, as in Pillow. Square, and may reach beyond the film's edge;
            of a whole film it is the film.
        side: the patient's `right` or `left` knee, or None where it can't be told.
        score: 0.5 to 1, how sure it is that this is a knee: the share of such finds on held-out composites that were
            one. A whole film may have less, down to 0.
        whole: the film is such a crop already, and is graded as it is.
    """

    box: Box
    side: str | None
    score: float
    whole: bool


def find_knees(film: Radiograph) -> tuple[KneeBox, ...]:
    """The knees on a film, at most two, from the film's left to its right; empty where none was found.

    Wide borders of one grey level are left aside. A film that shows one knee framed as in the release is `whole`.
    The side is the film's own where it states one and shows one knee; else that of the knee's shape (fibula, slope of
    the plateau). Of two knees the one on the film's left is the patient's right one, as in any anteroposterior film,
    unless their shapes say otherwise: then both sides are None. Where no find is sure, the film is looked at upside
    down as well; finds there count if one is sure, and is upside down by its own looks. Boxes are those of the film as
    it is, sides those of the film turned.
    """
    finder = _finder()
    found = finder.find(film)
    if _surest(found) >= _SURE:
        return found
    upside_down = finder.find(dataclasses.replace(film, pixels=orientation.rotated_180(film.pixels)))
    if _surest(upside_down) < _SURE:
        return found
    shape = film.pixels.shape
    knees = [dataclasses.replace(knee, box=turned_box(knee.box, shape)) for knee in reversed(upside_down)]
    best = max(knees, key=lambda knee: knee.score)
    return tuple(knees) if orientation.is_upside_down(crop(film, best.box).pixels) else found


def turned_box(box: Box, shape: tuple[int, int]) -> Box:
    """Where a box lies once its film, of that height and width, is turned by 180 degrees."""
    (left, top, right, bottom), (height, width) = box, shape
    return width - right, height - bottom, width - left, height - top


def _surest(knees: tuple[KneeBox, ...]) -> float:
    return max((knee.score for knee in knees), default=0.0)


def crop(film: Radiograph, box: Box) -> Radiograph:
    """The part of a film within a box, with all that the film says of itself.

    What lies beyond the film's edge is filled with the nearest pixel of the film: shafts and skin go on.

    Raises:
        ValueError: the box is empty or turned around.
    """
    left, top, right, bottom = (round(edge) for edge in box)
    if right <= left or bottom <= top:
        raise ValueError(f"box is {tuple(box)}; right must be more than left, and bottom more than top")
    height, width = film.pixels.shape
    if (left, top, right, bottom) == (0, 0, width, height):
        return film
    rows = np.arange(top, bottom).clip(0, height - 1)
    columns = np.arange(left, right).clip(0, width - 1)
    return dataclasses.replace(film, pixels=film.pixels[np.ix_(rows, columns)])


def multi_scale_crops(film: Radiograph, box: Box) -> list[Radiograph]:
    """What is within a box, and within boxes a little smaller and larger about the same centre, to be graded together.

    A box that was found, or drawn by hand, is off by a few hundredths of its width, which is enough to move a grade
    that lies between two; the mean over three sizes moves less (`results/localiser`).
    """
    left, top, right, bottom = box
    x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    other = [
        tuple(round(edge) for edge in (x - s * width / 2, y - s * height / 2, x + s * width / 2, y + s * height / 2))
        for s in (1 - BOX_MARGIN, 1 + BOX_MARGIN)
    ]
    return [crop(film, box), *(crop(film, one) for one in other if one[0] < one[2] and one[1] < one[3])]


class Views:
    """A film in octaves of resolution, from which windows of any size are taken quickly.

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
        """The window that is about the film itself, (3,): of its centre and its area."""
        return np.array([self.width / 2, self.height / 2, math.sqrt(self.width * self.height)])

    @property
    def nearly_square(self) -> bool:
        """Whether the film has the shape of a crop as in the release."""
        return max(self.height, self.width) <= _SQUARE * min(self.height, self.width)

    def levels(self, pixels: np.ndarray) -> np.ndarray:
        """Grey levels of the film, 0 to 1 for all but the darkest and brightest hundredth; float32."""
        return (pixels.astype(np.float32) - np.float32(self._low)) / np.float32(self._range)

    def scaled(self, scale: float) -> np.ndarray:
        """The whole film at `scale` times its size: float32 (height, width) in levels."""
        image = self._octaves[min(max(math.floor(-math.log2(scale)), 0), len(self._octaves) - 1)]
        size = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
        return self.levels(np.asarray(image.resize(size, Image.Resampling.BILINEAR)))

    def windows(self, windows: np.ndarray, pixels: int) -> np.ndarray:
        """The film within windows, each resized to `pixels` a side, edges continued: float32 (n, pixels, pixels)."""
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
    """What the sliding window sees, for single windows: float32 (n, cells, cells, bins)."""
    cells = COARSE_CELLS + 2  # features are normalised with the neighbours'
    seen = views.windows(windows * (1, 1, cells / COARSE_CELLS), cells * COARSE_CELL)
    return hog(seen, COARSE_CELL)[:, 1:-1, 1:-1]


def fine_features(views: Views, windows: np.ndarray) -> np.ndarray:
    """What the second look sees: float32 (n, cells, cells, bins), `CONTEXT` cells around the window included."""
    cells = FINE_CELLS + 2 * CONTEXT + 2
    seen = views.windows(windows * (1, 1, cells / FINE_CELLS), cells * FINE_CELL)
    return hog(seen, FINE_CELL)[:, 1:-1, 1:-1]


def flattened(features: np.ndarray) -> np.ndarray:
    """Features as the linear models take them: (n, ...) -> (n, features), also where n is 0."""
    return features.reshape(len(features), math.prod(features.shape[1:]))


def moved(windows: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Windows moved by (n, 3): x and y in widths of the window, and the logarithm of the change of width."""
    x, y, width = windows.T
    return np.stack([x + by[:, 0] * width, y + by[:, 1] * width, width * np.exp(by[:, 2])], axis=1)


def overlaps(window: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Area of intersection over area of union of a window (3,) with others (n, 3)."""
    shared = _shared(window, windows)
    return shared / (windows[:, 2] ** 2 + window[2] ** 2 - shared)


def _shared(window: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Area of intersection."""
    smaller = np.minimum(windows[:, 2:], window[2])
    reach = (windows[:, 2:] + window[2]) / 2 - np.abs(windows[:, :2] - window[:2])
    return np.minimum(reach, smaller).clip(0).prod(1)


def distinct(windows: np.ndarray, scores: np.ndarray, most: int) -> np.ndarray:
    """Non-maximum suppression: indices of the best windows, best first, none much over another."""
    kept: list[int] = []
    left = np.argsort(-scores, kind="stable")
    while len(left) and len(kept) < most:
        best = left[0]
        kept.append(int(best))
        smaller = np.minimum(windows[left, 2], windows[best, 2]) ** 2
        left = left[_shared(windows[best], windows[left]) <= _OVERLAP * smaller]
    return np.array(kept, int)


def slide(views: Views, weights: np.ndarray, bias: float, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Windows of all sizes and places that pass, and their scores: (n, 3) and (n,).

    Args:
        weights: float32 (cells, cells, bins); the score is their product with `coarse_features`, plus `bias`.
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
    """What is fitted.

    Attributes:
        slide_weight, slide_bias, slide_least: the sliding window's classifier, (cells, cells, bins) and a number, and
            the score from which a window becomes a candidate.
        move_weight, move_bias: (2, features, 3) and (2, 3): the two corrections, by fine features, as in `moved`.
        knee_weight, knee_bias: (features,) and a number: the logit of being a knee.
        side_weight, side_bias, side_least: (cells, cells, bins) of the window without context and a number: the logit
            of being a right knee, and how far from 0 it is to be believed.
        whole_overlap, whole_least: a film is a crop as in the release if the knee's window covers it so far
            (intersection over union) and has at least that logit.
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
        tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(path).items()}
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
                side = film.side or self._side(right[best])
                return (KneeBox(box, side, float(expit(logits[best])), whole),)
        kept = distinct(windows, logits, MOST_KNEES)
        kept = kept[logits[kept] >= 0]
        if len(kept) == 2 and not _paired(*windows[kept]):
            kept = kept[:1]
        kept = kept[np.argsort(windows[kept, 0])]
        sides = [film.side or self._side(right[i]) for i in kept]
        if len(kept) == 2:
            difference = float(right[kept[0]] - right[kept[1]])
            sides = ["right", "left"] if difference > -2 * self.side_least else [None, None]
        return tuple(
            KneeBox(_box(windows[i], x0, y0), side, float(expit(logits[i])), whole=False)
            for i, side in zip(kept, sides, strict=True)
        )

    def candidates(self, views: Views) -> np.ndarray:
        """Windows that may be knees: what the sliding window finds, and the film itself if it is about square."""
        windows, scores = slide(views, self.slide_weight, self.slide_bias, self.slide_least)
        windows = windows[distinct(windows, scores, _CANDIDATES)]
        if views.nearly_square:
            windows = np.vstack([windows, views.whole])
        return windows

    def look(self, views: Views, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best of some windows moved onto their knees, their logits (n,) and their `fine_features`."""
        features = fine_features(views, windows)
        windows = moved(windows, self.correction(0, features))
        if len(windows) > _REFINED:
            windows = windows[np.argsort(-self.logit(features), kind="stable")[:_REFINED]]
        windows = moved(windows, self.correction(1, fine_features(views, windows)))
        features = fine_features(views, windows)
        return windows, self.logit(features), features

    def correction(self, step: int, features: np.ndarray) -> np.ndarray:
        """How to move windows with these fine features: (n, 3), at most 0.4 each."""
        by = flattened(features) @ self.move_weight[step] + self.move_bias[step]
        return by.clip(-0.4, 0.4)

    def logit(self, features: np.ndarray) -> np.ndarray:
        """Of being a knee, (n,)."""
        return flattened(features) @ self.knee_weight + self.knee_bias

    def right(self, features: np.ndarray) -> np.ndarray:
        """Logit of being a right knee, (n,)."""
        inner = features[:, CONTEXT:-CONTEXT, CONTEXT:-CONTEXT]
        return flattened(inner) @ self.side_weight + self.side_bias

    def _side(self, right: float) -> str | None:
        if abs(right) < self.side_least:
            return None
        return "right" if right > 0 else "left"


@functools.cache
def _finder() -> Finder:
    return Finder.load(WEIGHTS_FILE)


def _paired(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two windows may be the two knees of a person who stands or lies straight."""
    small, large = sorted((one[2], other[2]))
    return large <= _ALIKE * small and abs(one[1] - other[1]) <= _LEVEL * large


def _box(window: np.ndarray, x0: int, y0: int) -> Box:
    """A window of the trimmed film as a square of whole pixels in the film."""
    x, y, width = window
    side = max(1, round(width))
    left, top = round(x0 + x - side / 2), round(y0 + y - side / 2)
    return left, top, left + side, top + side
