"""Which way of measuring familiarity tells knees from everything else, and what it is worth.

Ordinary knees are those of the validation split as they are, and once more `as_on_films`: cut out of a larger film they
have fewer pixels, are framed a little differently, and have other grey levels, and are no less knees for that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from koa_hf.grading.calibration import probabilities_of
from koa_hf.grading.familiarity import Familiarity
from koa_hf.imaging import localiser
from koa_hf.imaging.radiograph import Radiograph
from train.fitting.cross_fit import folds_of
from train.fitting.measure import LAYERS, Measured

COMPONENTS = (16, 64, 256)
NEIGHBOURS = 5
NARROWEST = 80  # pixels: width of the least of `as_on_films`
_FRAMED = 0.08  # by how much of its width a knee is framed wider or narrower,
_OFF = 0.04  # and beside the middle
_EXPONENT = 0.25  # of the grey levels, either way from 1


def as_on_films(knees: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Each knee once, uint8 (height, width), in other sizes, frames and grey levels, drawn by the seed."""
    rng, varied = np.random.default_rng(seed), []
    for knee in knees:
        width = round(np.exp(rng.uniform(np.log(NARROWEST), np.log(max(NARROWEST, knee.shape[1])))))
        height = round(width * knee.shape[0] / knee.shape[1])
        smaller = np.asarray(Image.fromarray(knee).resize((width, height), Image.Resampling.BOX))
        edge = rng.uniform(-_FRAMED, _FRAMED) / 2
        right, down = rng.uniform(-_OFF, _OFF, 2)
        box = ((right - edge) * width, (down - edge) * height, (1 + right + edge) * width, (1 + down + edge) * height)
        pixels = localiser.crop(Radiograph(smaller, "knee"), box).pixels
        exponent = np.exp(rng.uniform(-1, 1) * np.log1p(_EXPONENT))
        varied.append(((pixels / 255) ** exponent * 255).round().astype(np.uint8))
    return varied


@dataclass(frozen=True)
class Way:
    """A way of measuring how far images lie from the training knees.

    Attributes:
        distance: images -> float (n,), larger is further.
        familiarity: what a model folder keeps of it; None for a way that is here for comparison only.
    """

    name: str
    distance: Callable[[Measured], np.ndarray]
    familiarity: Familiarity | None = None


def ways(training: Measured) -> list[Way]:
    """Every way that is compared: two on each layer, and the usual baseline."""
    found = [Way("1 - highest probability", lambda images: 1 - probabilities_of(images.logits).max(1))]
    for layer in LAYERS:
        features = training.layers[layer]
        found.append(Way(f"distance to the {NEIGHBOURS}th nearest, {layer}", _nearest(layer, features)))
        for components in COMPONENTS:
            if components < min(features.shape):
                gaussian = Familiarity.fit(layer, features, components)
                name = f"Mahalanobis, {components} directions, {layer}"
                found.append(Way(name, _mahalanobis(gaussian), gaussian))
    return found


def _nearest(layer: str, features: np.ndarray) -> Callable[[Measured], np.ndarray]:
    """On features of unit length, as in Sun et al. 2022, https://arxiv.org/abs/2204.06507."""

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)

    neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(features))).fit(unit(features))
    return lambda images: neighbours.kneighbors(unit(images.layers[layer]))[0][:, -1]


def _mahalanobis(gaussian: Familiarity) -> Callable[[Measured], np.ndarray]:
    measure = gaussian.measure()
    return lambda images: measure(torch.from_numpy(images.layers[gaussian.layer])).numpy()


def worth(
    way: Way, knees: Measured, others: dict[str, Measured], caught_before: dict[str, np.ndarray], share: float
) -> dict:
    """Area under the ROC curve and share caught, by kind of image, where `share` of the knees is flagged too.

    Args:
        knees: ordinary ones.
        caught_before: by kind, which images a rule before has recognised and righted, bool (n,).
    """
    of_knees = way.distance(knees)
    limit = limit_for(of_knees, share)
    areas, caught = {}, {}
    for kind, images in others.items():
        distances = way.distance(images)
        if kind in caught_before:
            distances = np.where(caught_before[kind], np.finfo(np.float64).max, distances)
        unlike = np.repeat([False, True], [len(of_knees), len(distances)])
        areas[kind] = float(roc_auc_score(unlike, np.concatenate([of_knees, distances])))
        caught[kind] = float((distances > limit).mean())
    return {
        "method": way.name,
        "mean_auroc": float(np.mean(list(areas.values()))),
        "mean_caught": float(np.mean(list(caught.values()))),
        "auroc": areas,
        "caught": caught,
    }


def best(rows: list[dict], but: str | None = None) -> int:
    """Which of the rows of `worth` catches most, on average over the kinds, and of equal ones has the highest AUROC.

    Args:
        but: a kind that doesn't count.
    """

    def mean(row: dict, figure: str) -> float:
        return float(np.mean([value for kind, value in row[figure].items() if kind != but]))

    return max(range(len(rows)), key=lambda i: (mean(rows[i], "caught"), mean(rows[i], "auroc")))


def with_each_kind_left_out(rows: list[dict]) -> dict[str, dict]:
    """For every kind, what the way that was chosen without it is worth for it."""
    found = {}
    for kind in rows[0]["caught"]:
        row = rows[best(rows, but=kind)]
        found[kind] = {"method": row["method"], "caught": row["caught"][kind], "auroc": row["auroc"][kind]}
    return found


def limit_for(of_knees: np.ndarray, share: float) -> float:
    """The distance that at most `share` of knees exceed."""
    return float(np.quantile(of_knees, 1 - share, method="higher"))


def flagged_by_fold(way: Way, knees: Measured, patients: np.ndarray, share: float) -> np.ndarray:
    """Which knees are called unfamiliar by a limit that was set on other patients: bool (n,)."""
    distances = way.distance(knees)
    flagged = np.empty(len(distances), bool)
    for fit, held_out in folds_of(patients):
        flagged[held_out] = distances[held_out] > limit_for(distances[fit], share)
    return flagged
