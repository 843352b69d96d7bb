"""Out-of-distribution detectors, compared on ordinary knees and on images that are no ordinary knees.

In distribution are knees as they are and `as_uploaded`: one with fewer pixels, another frame, other grey levels or the
traces of JPEG is still an ordinary knee. So a detector is fitted to both, of the training split, and its limit is set
on both, of the validation split.
"""

import io
from collections.abc import Callable, Iterable
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
from train.fitting.layer_features import LAYERS, LayerFeatures

COMPONENTS = (16, 64, 256)
NEIGHBOURS = 5
NARROWEST = 80  # pixels: smallest width of `as_uploaded`
_FRAMED = 0.08  # largest change of the frame, as a share of its width
_CLOSEST = 0.6  # least part of the frame that is shown of some, as in a close crop
_OFF = 0.04  # largest shift of the frame, likewise
_EXPONENT = 0.25  # largest change of gamma, either way from 1
_NOISE = 10  # largest standard deviation, grey levels
_QUALITY = (30, 95)  # of JPEG


def as_uploaded(knees: Iterable[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Each knee once, uint8 (height, width), as one cut out of somebody's film.

    Random size, frame and gamma; a fifth closer up, a third noisy, half saved as JPEG.
    """
    rng, varied = np.random.default_rng(seed), []
    for knee in knees:
        width = round(np.exp(rng.uniform(np.log(NARROWEST), np.log(max(NARROWEST, knee.shape[1])))))
        height = round(width * knee.shape[0] / knee.shape[1])
        smaller = np.asarray(Image.fromarray(knee).resize((width, height), Image.Resampling.BOX))
        shown = 1 + rng.uniform(-_FRAMED, _FRAMED) if rng.random() < 0.8 else rng.uniform(_CLOSEST, 1)
        right, down = rng.uniform(-_OFF, _OFF, 2)
        edge = (1 - shown) / 2
        box = ((right + edge) * width, (down + edge) * height, (1 + right - edge) * width, (1 + down - edge) * height)
        pixels = localiser.crop(Radiograph(smaller, "knee"), box).pixels
        exponent = np.exp(rng.uniform(-1, 1) * np.log1p(_EXPONENT))
        grey = (pixels / 255) ** exponent * 255
        grey += rng.normal(0, rng.uniform(0, _NOISE) if rng.random() < 1 / 3 else 0, grey.shape)
        image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
        if rng.random() < 0.5:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=int(rng.integers(*_QUALITY, endpoint=True)))
            image = Image.open(file)
        varied.append(np.asarray(image))
    return varied


@dataclass(frozen=True)
class OodDetector:
    """A score of how far images lie from the training knees.

    Attributes:
        distance: features of n images -> float (n,), larger is further.
        familiarity: the detector as a model folder stores it; None for detectors that serve as a comparison only.
    """

    name: str
    distance: Callable[[LayerFeatures], np.ndarray]
    familiarity: Familiarity | None = None


def candidate_detectors(training: LayerFeatures) -> list[OodDetector]:
    """All detectors to compare: two kinds on each layer, and the highest probability as the usual baseline."""
    found = [OodDetector("1 - highest probability", lambda images: 1 - probabilities_of(images.logits).max(1))]
    for layer in LAYERS:
        features = training.layers[layer]
        found.append(OodDetector(f"distance to the {NEIGHBOURS}th nearest, {layer}", _nearest(layer, features)))
        for components in COMPONENTS:
            if components < min(features.shape):
                gaussian = Familiarity.fit(layer, features, components)
                name = f"Mahalanobis, {components} directions, {layer}"
                found.append(OodDetector(name, _mahalanobis(gaussian), gaussian))
    return found


def _nearest(layer: str, features: np.ndarray) -> Callable[[LayerFeatures], np.ndarray]:
    """Distance to the nearest neighbours of unit-length features: Sun et al. 2022, https://arxiv.org/abs/2204.06507."""

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)

    neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(features))).fit(unit(features))
    return lambda images: neighbours.kneighbors(unit(images.layers[layer]))[0][:, -1]


def _mahalanobis(gaussian: Familiarity) -> Callable[[LayerFeatures], np.ndarray]:
    measure = gaussian.measure()
    return lambda images: measure(torch.from_numpy(images.layers[gaussian.layer])).numpy()


def detector_figures(
    detector: OodDetector,
    knees: LayerFeatures,
    others: dict[str, LayerFeatures],
    caught_before: dict[str, np.ndarray],
    share: float,
) -> dict:
    """AUROC and catch rate of a detector for each kind of image, at the limit that flags `share` of ordinary knees.

    Args:
        caught_before: by kind, bool (n,): images that an earlier rule recognised and corrected, which count as caught.
    """
    of_knees = detector.distance(knees)
    limit = limit_for(of_knees, share)
    areas, caught = {}, {}
    for kind, images in others.items():
        distances = detector.distance(images)
        if kind in caught_before:
            distances = np.where(caught_before[kind], np.finfo(np.float64).max, distances)
        unlike = np.repeat([False, True], [len(of_knees), len(distances)])
        areas[kind] = float(roc_auc_score(unlike, np.concatenate([of_knees, distances])))
        caught[kind] = float((distances > limit).mean())
    return {
        "method": detector.name,
        "mean_auroc": float(np.mean(list(areas.values()))),
        "mean_caught": float(np.mean(list(caught.values()))),
        "auroc": areas,
        "caught": caught,
    }


def best_detector(rows: list[dict], but: str | None = None) -> int:
    """Index of the row of `detector_figures` with the highest mean catch rate over the kinds, ties by AUROC.

    Args:
        but: a kind to leave out.
    """

    def mean(row: dict, figure: str) -> float:
        return float(np.mean([value for kind, value in row[figure].items() if kind != but]))

    return max(range(len(rows)), key=lambda i: (mean(rows[i], "caught"), mean(rows[i], "auroc")))


def with_each_kind_left_out(rows: list[dict]) -> dict[str, dict]:
    """For every kind, the figures of the detector chosen without it."""
    found = {}
    for kind in rows[0]["caught"]:
        row = rows[best_detector(rows, but=kind)]
        found[kind] = {"method": row["method"], "caught": row["caught"][kind], "auroc": row["auroc"][kind]}
    return found


def limit_for(of_knees: np.ndarray, share: float) -> float:
    """Distance that at most `share` of the knees exceed."""
    return float(np.quantile(of_knees, 1 - share, method="higher"))


def flagged_by_fold(detector: OodDetector, knees: LayerFeatures, patients: np.ndarray, share: float) -> np.ndarray:
    """Knees flagged by a limit that was set on other patients, bool (n,)."""
    distances = detector.distance(knees)
    flagged = np.empty(len(distances), bool)
    for fit, held_out in folds_of(patients):
        flagged[held_out] = distances[held_out] > limit_for(distances[fit], share)
    return flagged
