"""Agreement of predicted probabilities with readers' grades, as one `evaluate.Metric` that needs no network.

KL grades are imbalanced and ordered, so three families of figures are reported: accuracy; Keras' default precision,
recall and AUC (micro, probability over 0.5), as in the paper; macro and ordinal figures, as the field compares systems.
"""

from collections.abc import Iterator

import datasets
import evaluate
import numpy as np
from scipy.stats import rankdata

from koa_hf.errors import KoaError
from koa_hf.grades import GRADE_NAMES, NUM_GRADES

GRADES = np.arange(NUM_GRADES)
CALIBRATION_BINS = 15

# Single-number figures of `KneeGradeMetrics`; True where higher is better.
HIGHER_IS_BETTER = {
    "accuracy": True,
    "balanced_accuracy": True,
    "quadratic_weighted_kappa": True,
    "mean_absolute_error": False,
    "within_one_grade": True,
    "macro_precision": True,
    "macro_recall": True,
    "macro_f1": True,
    "macro_auc": True,
    "keras_precision": True,
    "keras_recall": True,
    "keras_auc": True,
    "cross_entropy": False,
    "expected_calibration_error": False,
}

# Its bootstrap is biased: resampled knees repeat, so every bin strays further from calibration than the knees did.
WITHOUT_INTERVAL = "expected_calibration_error"

# Added by `train/validate.py` where the model's rules have prediction sets or out-of-distribution detection.
BY_RULES = ("set_coverage", "mean_set_size", "called_unfamiliar")

DESCRIPTION = """Agreement between predicted KL probabilities and KL grades.

The predicted grade is the most probable one, unless `predicted` gives another reading of the probabilities.

accuracy: share of images whose predicted grade is the reader's.
balanced_accuracy (= macro_recall): mean over grades of the recall; a grade that no image has is left out.
quadratic_weighted_kappa: Cohen 1968, weights (i-j)^2.
mean_absolute_error, within_one_grade: of the predicted grade, in grades.
macro_precision, macro_f1: mean over the grades; a grade never predicted counts as 0.
macro_auc: mean over grades of the one-versus-rest area under the ROC curve.
keras_precision, keras_recall: keras.metrics.Precision and Recall with defaults: a grade counts as predicted where its
    probability is over 0.5; hits and misses are summed over all grades (micro).
keras_auc: keras.metrics.AUC with defaults: one ROC over the flattened one-hot matrix (exact, not Keras' 200 bins).
cross_entropy: mean of -log of the probability given to the reader's grade, in nats.
expected_calibration_error: over 15 equal bins of the top probability (Guo et al. 2017).
recall_by_grade: list of 5; null where no image has the grade.
confusion_matrix: 5 by 5 counts, rows the reader's grade, columns the predicted one.
"""


class KneeGradeMetrics(evaluate.Metric):
    """`compute(predictions=probabilities (n, 5), references=grades (n,), predicted=grades (n,) or None)` -> dict of
    the figures in `DESCRIPTION`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description="predictions: n lists of 5 probabilities; references: n grades, 0 to 4",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32"), length=NUM_GRADES),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions, references, predicted=None) -> dict:
        return grade_metrics(np.asarray(predictions), np.asarray(references), predicted)


def grade_metrics(probabilities: np.ndarray, grades: np.ndarray, predicted: np.ndarray | None = None) -> dict:
    """The figures of `DESCRIPTION`.

    A figure that is undefined for these images (an AUC where only one grade occurs) is None.

    Args:
        probabilities: float (n, 5), rows summing to 1.
        grades: int (n,), the reader's.
        predicted: int (n,), the grades read from the probabilities; by default the most probable ones.

    Raises:
        KoaError: a probability is not finite.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if not np.isfinite(probabilities).all():
        raise KoaError("the network's output is not finite; if it was being trained, try a lower learning rate.")
    grades = np.asarray(grades)
    if predicted is None:
        predicted = probabilities.argmax(1)
    one_hot = grades[:, None] == GRADES
    claimed = probabilities > 0.5
    hits = int((claimed & one_hot).sum())
    # Not by scikit-learn, with which the tests compare: checking its input takes it longer than counting, and half a
    # minute for a bootstrap's samples.
    confusion = _confusion(predicted, grades)
    right, of_grade, as_grade = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    present = of_grade > 0
    recall = np.divide(right, of_grade, out=np.full(NUM_GRADES, np.nan), where=present)
    precision = right / np.maximum(as_grade, 1)
    f1 = 2 * right / np.maximum(of_grade + as_grade, 1)
    distance = np.abs(predicted - grades)
    several = present.sum() > 1
    macro_auc = roc_auc(one_hot, probabilities)[present].mean() if several else None
    return {
        "images": len(grades),
        "accuracy": float((distance == 0).mean()),
        "balanced_accuracy": float(np.nanmean(recall)),
        "quadratic_weighted_kappa": _kappa(confusion),
        "mean_absolute_error": float(distance.mean()),
        "within_one_grade": float((distance <= 1).mean()),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(np.nanmean(recall)),
        "macro_f1": float(f1.mean()),
        "macro_auc": float(macro_auc) if several else None,
        "keras_precision": hits / int(claimed.sum()) if claimed.any() else 0.0,
        "keras_recall": hits / len(grades),
        "keras_auc": float(roc_auc(one_hot.reshape(-1, 1), probabilities.reshape(-1, 1))[0]),
        "cross_entropy": float(-np.log(probabilities[one_hot].clip(1e-12)).mean()),
        "expected_calibration_error": expected_calibration_error(probabilities, grades),
        "recall_by_grade": [None if np.isnan(r) else float(r) for r in recall],
        "confusion_matrix": confusion.tolist(),
    }


def roc_auc(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each column, by ranks (Mann and Whitney 1947, doi 10.1214/aoms/1177730491).

    Args:
        positive: bool (n, columns).
        scores: float (n, columns).

    Returns:
        float (columns,), 0 to 1; NaN where a column has only positives or none.
    """
    ranks, n = rankdata(scores, axis=0), positive.sum(0)
    pairs = n * (len(positive) - n)
    above = (ranks * positive).sum(0) - n * (n + 1) / 2
    return np.divide(above, pairs, out=np.full(len(n), np.nan), where=pairs > 0)


def quadratic_weighted_kappa(predicted: np.ndarray, grades: np.ndarray) -> float | None:
    """Cohen's kappa with weights (i-j)^2 of two int (n,); None where only one and the same grade occurs."""
    return _kappa(_confusion(predicted, grades))


def _confusion(predicted: np.ndarray, grades: np.ndarray) -> np.ndarray:
    """int (5, 5), rows the reader's grade, columns the predicted one."""
    return np.bincount(grades * NUM_GRADES + predicted, minlength=NUM_GRADES**2).reshape(NUM_GRADES, -1)


def _kappa(confusion: np.ndarray) -> float | None:
    weights = (GRADES[:, None] - GRADES[None, :]) ** 2
    by_chance = np.outer(confusion.sum(1), confusion.sum(0)) / confusion.sum()
    expected = (weights * by_chance).sum()
    return float(1 - (weights * confusion).sum() / expected) if expected else None


def expected_calibration_error(probabilities: np.ndarray, grades: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Mean gap between top probability and accuracy over equal-width bins, weighted by images; 0 to 1.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3.
    """
    top = probabilities.max(1)
    correct = probabilities.argmax(1) == grades
    which = np.minimum((top * bins).astype(int), bins - 1)
    gaps = np.bincount(which, top - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(grades))


def bootstrap_intervals(
    probabilities: np.ndarray,
    grades: np.ndarray,
    patients,
    predicted: np.ndarray | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float] | list[tuple[float, float] | None]]:
    """95 % percentile intervals of the single-number figures and of the recalls, resampling patients (both knees
    together); none of `WITHOUT_INTERVAL`, and None for the recall of a grade that no image has.

    Args:
        probabilities: float (n, 5).
        grades: int (n,).
        patients: n patient ids.
        predicted: int (n,), as for `grade_metrics`.
        repeats: bootstrap samples.
    """
    if predicted is None:
        predicted = np.asarray(probabilities).argmax(1)
    samples = [
        grade_metrics(probabilities[rows], grades[rows], predicted[rows]) for rows in resamples(patients, repeats, seed)
    ]

    def between(values: list[float | None]) -> tuple[float, float] | None:
        defined = [value for value in values if value is not None]
        return tuple(np.percentile(defined, (2.5, 97.5)).tolist()) if defined else None

    names = [name for name in HIGHER_IS_BETTER if name != WITHOUT_INTERVAL]
    found = {name: between([sample[name] for sample in samples]) for name in names}
    intervals = {name: interval for name, interval in found.items() if interval}
    recalls = zip(*(sample["recall_by_grade"] for sample in samples), strict=True)
    return {**intervals, "recall_by_grade": [between(values) for values in recalls]}


def resamples(patients, repeats: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Rows of as many patients drawn with replacement, each with all of its images: int (about n,), so many times."""
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    order = np.argsort(patient, kind="stable")
    images_of = np.split(order, np.cumsum(np.bincount(patient))[:-1])
    random = np.random.default_rng(seed)
    for _ in range(repeats):
        yield np.concatenate([images_of[i] for i in random.integers(0, len(images_of), len(images_of))])


def bootstrap_mean(values: np.ndarray, patients, repeats: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a mean over knees, resampling patients (both knees together).

    Args:
        values: float (n,).
        patients: n patient ids.
        repeats: bootstrap samples.
    """
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    sums, counts = np.bincount(patient, values), np.bincount(patient)
    random, means = np.random.default_rng(seed), []
    for _ in range(repeats):
        drawn = random.integers(0, len(counts), len(counts))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def table_rows(figures: dict, intervals: dict) -> list[tuple[str, str, str]]:
    """(name, value, 95 % interval) for printing; recall by grade included."""

    def row(name: str, value: float | None, missing: str, interval: tuple[float, float] | None):
        between = "{:.3f} to {:.3f}".format(*interval) if interval else ""
        return name.replace("_", " "), missing if value is None else f"{value:.4f}", between

    rows = [
        row(name, figures[name], "undefined", intervals.get(name) if name != WITHOUT_INTERVAL else None)
        for name in HIGHER_IS_BETTER
    ]
    of_recalls = intervals.get("recall_by_grade") or [None] * NUM_GRADES  # older runs have none
    recalls = zip(GRADE_NAMES, figures["recall_by_grade"], of_recalls, strict=True)
    rows += [row(f"recall of {grade}", recall, "no image", interval) for grade, recall, interval in recalls]
    return rows + [row(name, figures[name], "", intervals.get(name)) for name in BY_RULES if name in figures]
