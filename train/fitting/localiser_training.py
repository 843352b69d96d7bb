"""How the finder of knees is fitted: from films whose knees are known to a `koa_hf.imaging.localiser.Finder`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from koa_hf.imaging import localiser
from koa_hf.imaging.hog import BINS
from koa_hf.imaging.localiser import Finder, Views, flattened
from koa_hf.progress import progress_bar

NOT_A_KNEE = 0.4  # a window that covers a knee less (intersection over union) shows none
A_KNEE = 0.6  # one that covers it more shows it
MISSED = 0.002  # share of knees that the sliding window's threshold may lose
NOT_WHOLE = 0.002  # share of crops of the release that each of the two thresholds for a whole film may lose
SURE_OF_SIDE = 2.2  # logit: nine to one
_RIDGE = 10.0  # penalty of the corrections
_WINDOWS = 3  # around each knee, in every step


@dataclass(frozen=True)
class Film:
    """A film to fit on: what of it is looked at, the windows (n, 3) of its knees, and their sides."""

    views: Views
    knees: np.ndarray
    sides: tuple[str, ...]


@dataclass(frozen=True)
class Training:
    """What a finder is fitted on: films, films and crops of other patients for thresholds, pictures without a knee."""

    films: list[Film]
    tuning: list[Film]
    empty: list[Film]
    crops: list[Views]


def fit(training: Training, seed: int) -> Finder:
    """Fit the steps of a finder one after the other, each on what the ones before it let through."""
    rng = np.random.default_rng(seed)
    films = training.films + training.empty
    finder = unfitted()

    def coarse(film: Film) -> tuple[np.ndarray, np.ndarray]:
        at, _ = jittered(film.knees, 0.06, 0.09, rng)
        windows = np.concatenate([at, elsewhere(film, 8 if len(at) else 20, rng)])
        return localiser.coarse_features(film.views, windows), np.arange(len(windows)) < len(at)

    def mistaken(film: Film) -> tuple[np.ndarray, np.ndarray]:
        windows = finder.candidates(film.views)
        windows = windows[covered(windows, film.knees) < NOT_A_KNEE]
        return localiser.coarse_features(film.views, windows), np.zeros(len(windows), bool)

    seen = each("windows at knees and elsewhere", films, coarse)
    finder = with_slide(finder, *_stacked(seen))
    seen += each("windows mistaken for knees", training.films[::2] + training.empty, mistaken)
    finder = with_slide(finder, *_stacked(seen))

    def near(film: Film, shift: float, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        windows, way = jittered(film.knees, shift, scale, rng)
        right = np.repeat([side == "right" for side in film.sides], _WINDOWS)
        return localiser.fine_features(film.views, windows), way, right

    far = _stacked(each("windows off by much", training.films, lambda film: near(film, 0.14, 0.2)))
    close = _stacked(each("windows off by little", training.films, lambda film: near(film, 0.06, 0.08)))
    finder = with_sides(with_moves(finder, [far[:2], close[:2]]), close[0], close[2])

    def judged(film: Film) -> tuple[np.ndarray, np.ndarray]:
        windows, _, features = finder.look(film.views, finder.candidates(film.views))
        share = covered(windows, film.knees)
        clear = (share < NOT_A_KNEE) | (share > A_KNEE)
        return features[clear], share[clear] > A_KNEE

    weight, bias = separated(*_stacked(each("finds", films, judged)))
    finder = replace(finder, knee_weight=weight, knee_bias=bias)
    finder = scaled(finder, *_stacked(each("finds on other patients", training.tuning, judged)))
    return with_whole(finder, training.crops)


def jittered(knees: np.ndarray, shift: float, scale: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Windows off each knee by at most `shift` of its width and e to the `scale`; and the way back, see `way_to`."""
    knees = np.repeat(knees, _WINDOWS, axis=0)
    away = rng.uniform(-1, 1, (len(knees), 3)) * (shift, shift, scale)
    windows = localiser.moved(knees, away)
    return windows, way_to(knees, windows)


def way_to(knees: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """By how much windows (n, 3) are to be moved to be the knees (n, 3): (n, 3) as in `localiser.moved`."""
    return np.column_stack([(knees[:, :2] - windows[:, :2]) / windows[:, 2:], np.log(knees[:, 2] / windows[:, 2])])


def covered(windows: np.ndarray, knees: np.ndarray) -> np.ndarray:
    """The share (intersection over union) to which each window is one of the knees; 0 where there are none."""
    if not len(knees) or not len(windows):
        return np.zeros(len(windows))
    return np.max([localiser.overlaps(knee, windows) for knee in knees], axis=0)


def elsewhere(film: Film, number: int, rng: np.random.Generator) -> np.ndarray:
    """Random windows of any size that show no knee, or a part of one, or one in a corner."""
    shorter = min(film.views.height, film.views.width)
    low, high = np.log(max(localiser.SMALLEST * shorter, 40)), np.log(max(localiser.LARGEST * shorter, 80))
    width = np.exp(rng.uniform(low, high, 3 * number))
    x, y = rng.uniform(0, film.views.width, 3 * number), rng.uniform(0, film.views.height, 3 * number)
    windows = np.column_stack([x, y, width])
    if len(film.knees):  # half of them about a knee, at a wrong size or place
        knee = film.knees[rng.integers(len(film.knees), size=len(windows) // 2)]
        off = rng.uniform(-1, 1, (len(knee), 3)) * (0.7, 0.7, 1.2)
        windows[: len(knee)] = localiser.moved(knee, off)
    windows = windows[(covered(windows, film.knees) < NOT_A_KNEE) & (windows[:, 2] >= 30)]
    return rng.permutation(windows)[:number]


def unfitted() -> Finder:
    """A finder for which every window of a film is a knee."""
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
    """With the sliding window fitted to coarse features."""
    weight, bias = separated(features, is_knee)
    least = np.quantile(flattened(features[is_knee]) @ weight + bias, MISSED)
    weight = weight.reshape(finder.slide_weight.shape)
    return replace(finder, slide_weight=weight, slide_bias=bias, slide_least=float(least))


def with_moves(finder: Finder, steps: Sequence[tuple[np.ndarray, np.ndarray]]) -> Finder:
    """With the corrections fitted, each to fine features and the ways to the knees."""
    models = [Ridge(alpha=_RIDGE).fit(flattened(features), way) for features, way in steps]
    return replace(
        finder,
        move_weight=np.stack([model.coef_.T for model in models]).astype(np.float32),
        move_bias=np.stack([model.intercept_ for model in models]).astype(np.float32),
    )


def with_sides(finder: Finder, features: np.ndarray, right: np.ndarray) -> Finder:
    """With right told from left by the fine features of the window without its context."""
    inner = slice(localiser.CONTEXT, -localiser.CONTEXT)
    weight, bias = separated(features[:, inner, inner], right)
    return replace(finder, side_weight=weight, side_bias=bias)


def separated(features: np.ndarray, yes: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of a logistic regression, both classes weighing the same."""
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=300).fit(flattened(features), yes)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def scaled(finder: Finder, features: np.ndarray, is_knee: np.ndarray) -> Finder:
    """With the logit of being a knee scaled by held-out windows (Platt 1999)."""
    platt = LogisticRegression(C=1e3).fit(finder.logit(features)[:, None], is_knee)
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    return replace(finder, knee_weight=finder.knee_weight * slope, knee_bias=finder.knee_bias * slope + offset)


def with_whole(finder: Finder, crops: Sequence[Views]) -> Finder:
    """With the thresholds by which crops as in the release are told."""
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


def each(what: str, items: Sequence, do: Callable) -> list:
    """`do` for each item, with a progress bar."""
    with progress_bar(what, len(items), show=True) as advance:
        done = []
        for item in items:
            done.append(do(item))
            advance()
    return done


def _stacked(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
