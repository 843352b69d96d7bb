"""Training of the localiser: annotated films -> `koa_hf.imaging.localiser.Finder`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from koa_hf.imaging import localiser
from koa_hf.imaging.hog import BINS
from koa_hf.imaging.localiser import Finder, Views, flattened
from koa_hf.progress import ProgressBar

NOT_A_KNEE = 0.4  # a window with a lower intersection over union with every knee is a negative
A_KNEE = 0.6  # one with a higher one is a positive
MISSED = 0.002  # share of knees that the sliding window's threshold may miss
NOT_WHOLE = 0.002  # share of the release's crops that each of the two thresholds for `whole` may miss
SURE_OF_SIDE = 2.2  # logit, odds of nine to one
_RIDGE = 10.0  # penalty of the regression that moves a window
_WINDOWS = 3  # jittered copies of each knee, in every step


@dataclass(frozen=True)
class AnnotatedFilm:
    """A film with known knees.

    Attributes:
        knees: float (n, 3), windows as centre x, centre y and width in pixels.
        sides: `right` or `left`, for each knee.
    """

    views: Views
    knees: np.ndarray
    sides: tuple[str, ...]


@dataclass(frozen=True)
class LocaliserTrainingSet:
    """Data that a finder is trained on.

    Attributes:
        films: to fit on.
        tuning: films of other patients, for Platt scaling.
        empty: pictures without a knee.
        crops: of the tuning patients, as in the release, for thresholds.
    """

    films: list[AnnotatedFilm]
    tuning: list[AnnotatedFilm]
    empty: list[AnnotatedFilm]
    crops: list[Views]


def train_finder(training: LocaliserTrainingSet, seed: int) -> Finder:
    """Fit the steps of a finder one after the other, each on the windows that pass the steps before it."""
    rng = np.random.default_rng(seed)
    films = training.films + training.empty
    finder = unfitted()

    def coarse(film: AnnotatedFilm) -> tuple[np.ndarray, np.ndarray]:
        at, _ = jittered(film.knees, 0.06, 0.09, rng)
        windows = np.concatenate([at, elsewhere(film, 8 if len(at) else 20, rng)])
        return localiser.coarse_features(film.views, windows), np.arange(len(windows)) < len(at)

    def mistaken(film: AnnotatedFilm) -> tuple[np.ndarray, np.ndarray]:
        windows = finder.candidates(film.views)
        windows = windows[covered(windows, film.knees) < NOT_A_KNEE]
        return localiser.coarse_features(film.views, windows), np.zeros(len(windows), bool)

    seen = map_with_progress("windows at knees and elsewhere", films, coarse)
    finder = with_slide(finder, *_stacked(seen))
    seen += map_with_progress("windows mistaken for knees", training.films[::2] + training.empty, mistaken)
    finder = with_slide(finder, *_stacked(seen))

    def near(film: AnnotatedFilm, shift: float, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        windows, back = jittered(film.knees, shift, scale, rng)
        right = np.repeat([side == "right" for side in film.sides], _WINDOWS)
        return localiser.fine_features(film.views, windows), back, right

    far = _stacked(map_with_progress("windows off by much", training.films, lambda film: near(film, 0.14, 0.2)))
    close = _stacked(map_with_progress("windows off by little", training.films, lambda film: near(film, 0.06, 0.08)))
    finder = with_sides(with_moves(finder, [far[:2], close[:2]]), close[0], close[2])

    def judged(film: AnnotatedFilm) -> tuple[np.ndarray, np.ndarray]:
        windows, _, features = finder.look(film.views, finder.candidates(film.views))
        share = covered(windows, film.knees)
        clear = (share < NOT_A_KNEE) | (share > A_KNEE)
        return features[clear], share[clear] > A_KNEE

    weight, bias = separated(*_stacked(map_with_progress("finds", films, judged)))
    finder = replace(finder, knee_weight=weight, knee_bias=bias)
    finder = with_scaled_logit(finder, *_stacked(map_with_progress("finds on other patients", training.tuning, judged)))
    return with_whole(finder, training.crops)


def jittered(knees: np.ndarray, shift: float, scale: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Windows displaced by at most `shift` of a knee's width and rescaled by at most e^`scale`; and `offsets` back."""
    knees = np.repeat(knees, _WINDOWS, axis=0)
    away = rng.uniform(-1, 1, (len(knees), 3)) * (shift, shift, scale)
    windows = localiser.moved(knees, away)
    return windows, offsets(knees, windows)


def offsets(knees: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Displacements that move windows (n, 3) onto knees (n, 3): float (n, 3), as in `localiser.moved`."""
    return np.column_stack([(knees[:, :2] - windows[:, :2]) / windows[:, 2:], np.log(knees[:, 2] / windows[:, 2])])


def covered(windows: np.ndarray, knees: np.ndarray) -> np.ndarray:
    """Highest intersection over union of each window with any knee, float (n,); 0 without knees."""
    if not len(knees) or not len(windows):
        return np.zeros(len(windows))
    return np.max([localiser.overlaps(knee, windows) for knee in knees], axis=0)


def elsewhere(film: AnnotatedFilm, number: int, rng: np.random.Generator) -> np.ndarray:
    """Random negative windows of any size: no knee, a part of one, or one in a corner."""
    shorter = min(film.views.height, film.views.width)
    low, high = np.log(max(localiser.SMALLEST * shorter, 40)), np.log(max(localiser.LARGEST * shorter, 80))
    width = np.exp(rng.uniform(low, high, 3 * number))
    x, y = rng.uniform(0, film.views.width, 3 * number), rng.uniform(0, film.views.height, 3 * number)
    windows = np.column_stack([x, y, width])
    if len(film.knees):  # half of them near a knee, at a wrong size or place
        knee = film.knees[rng.integers(len(film.knees), size=len(windows) // 2)]
        off = rng.uniform(-1, 1, (len(knee), 3)) * (0.7, 0.7, 1.2)
        windows[: len(knee)] = localiser.moved(knee, off)
    windows = windows[(covered(windows, film.knees) < NOT_A_KNEE) & (windows[:, 2] >= 30)]
    return rng.permutation(windows)[:number]


def unfitted() -> Finder:
    """A finder that takes every window of a film for a knee."""
    cells = (localiser.COARSE_CELLS, localiser.COARSE_CELLS, BINS)
    fine = (localiser.FINE_CELLS + 2 * localiser.CONTEXT) ** 2 * BINS
    inner = localiser.FINE_CELLS**2 * BINS
    return Finder(
        slide_weight=np.zeros(cells, np.float32),
        slide_bias=0.0,
        slide_least=-1.0,
        move_weight=np.zeros((2, fine, 3), np.float32),
        move_bias=np.zeros((2, 3), np.float32),
        knee_weight=np.zeros(fine, np.float32),
        knee_bias=0.0,
        side_weight=np.zeros(inner, np.float32),
        side_bias=0.0,
        side_least=SURE_OF_SIDE,
        whole_overlap=0.0,
        whole_least=0.0,
    )


def with_slide(finder: Finder, features: np.ndarray, is_knee: np.ndarray) -> Finder:
    """With the sliding-window classifier fitted to coarse features."""
    weight, bias = separated(features, is_knee)
    least = np.quantile(flattened(features[is_knee]) @ weight + bias, MISSED)
    weight = weight.reshape(finder.slide_weight.shape)
    return replace(finder, slide_weight=weight, slide_bias=bias, slide_least=float(least))


def with_moves(finder: Finder, steps: Sequence[tuple[np.ndarray, np.ndarray]]) -> Finder:
    """With the window regressions fitted, each to fine features and offsets."""
    models = [Ridge(alpha=_RIDGE).fit(flattened(features), offset) for features, offset in steps]
    return replace(
        finder,
        move_weight=np.stack([model.coef_.T for model in models]).astype(np.float32),
        move_bias=np.stack([model.intercept_ for model in models]).astype(np.float32),
    )


def with_sides(finder: Finder, features: np.ndarray, right: np.ndarray) -> Finder:
    """With the laterality classifier fitted to the fine features of the window without its context."""
    inner = slice(localiser.CONTEXT, -localiser.CONTEXT)
    weight, bias = separated(features[:, inner, inner], right)
    return replace(finder, side_weight=weight, side_bias=bias)


def separated(features: np.ndarray, yes: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of a class-balanced logistic regression."""
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=300).fit(flattened(features), yes)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def with_scaled_logit(finder: Finder, features: np.ndarray, is_knee: np.ndarray) -> Finder:
    """With the logit of a knee calibrated on held-out windows (Platt 1999)."""
    platt = LogisticRegression(C=1e3).fit(finder.logit(features)[:, None], is_knee)
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    return replace(finder, knee_weight=finder.knee_weight * slope, knee_bias=finder.knee_bias * slope + offset)


def with_whole(finder: Finder, crops: Sequence[Views]) -> Finder:
    """With the thresholds that recognise crops as in the release (`whole`)."""
    overlap, logit = [], []
    for views in crops:
        windows, logits, _ = finder.look(views, finder.candidates(views))
        best = int(np.argmax(logits))
        overlap.append(localiser.overlaps(views.whole, windows[[best]])[0])
        logit.append(logits[best])
    return replace(
        finder,
        whole_overlap=float(np.quantile(overlap, NOT_WHOLE)),
        whole_least=float(min(np.quantile(logit, NOT_WHOLE), 0)),
    )


def map_with_progress(description: str, items: Sequence, function: Callable) -> list:
    """The function's result for each item, with a progress bar."""
    return [function(item) for item in ProgressBar(items, description)]


def _stacked(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
