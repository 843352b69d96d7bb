"""Temperature and prediction-set level fitted to logits, and cross-fitting over patients."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.model_selection import GroupKFold

from koa_hf.grading.calibration import grade_sets, probabilities_of, set_scores
from koa_hf.grading.metrics import CALIBRATION_BINS, expected_calibration_error, grade_metrics

FOLDS = 10

TIE = 0.01
"""Two most probable grades nearer than this are a tie: either may come out ahead in another arithmetic."""

FIGURES = ("accuracy", "balanced_accuracy", "quadratic_weighted_kappa", "mean_absolute_error", "macro_auc")
_TEMPERATURES = (0.05, 20.0)


def fit_temperature(logits: np.ndarray, grades: np.ndarray) -> float:
    """Maximum-likelihood temperature, over 0: logits float (n, 5), grades int (n,)."""

    def cross_entropy(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(grades)), grades].mean()

    return float(np.exp(minimize_scalar(cross_entropy, bounds=np.log(_TEMPERATURES), method="bounded").x))


def fit_set_level(probabilities: np.ndarray, grades: np.ndarray, coverage: float = 0.9) -> float:
    """The level of `set_scores` at which prediction sets cover a new knee's grade with probability `coverage`.

    Args:
        probabilities: float (n, 5).
        grades: int (n,), the reader's.
        coverage: over 0, under 1.
    """
    of_reader = np.sort(set_scores(probabilities)[np.arange(len(grades)), grades])
    rank = int(np.floor((1 - coverage) * (len(grades) + 1)))
    return float(of_reader[rank - 1]) if rank else 0.0


@dataclass(frozen=True)
class Fitted:
    """Parameters fitted to the logits of some knees."""

    temperature: float
    level: float

    @classmethod
    def to(cls, logits: np.ndarray, grades: np.ndarray, coverage: float) -> "Fitted":
        temperature = fit_temperature(logits, grades)
        probabilities = probabilities_of(logits, temperature)
        return cls(temperature, fit_set_level(probabilities, grades, coverage))


def folds_of(patients: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to fit on, rows to measure on) for each fold; both knees of a patient are in the same fold."""
    split = GroupKFold(min(FOLDS, len(np.unique(patients))), shuffle=True, random_state=0)
    return list(split.split(np.empty(len(patients)), groups=patients))


def cross_fit(
    logits: np.ndarray, grades: np.ndarray, patients: np.ndarray, coverage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, float (n, 5), and sets, int (n, 2), of every knee by rules fitted to other patients only."""
    probabilities, sets = np.empty(logits.shape), np.empty((len(grades), 2), int)
    for fit, held_out in folds_of(patients):
        rules = Fitted.to(logits[fit], grades[fit], coverage)
        probabilities[held_out] = probabilities_of(logits[held_out], rules.temperature)
        sets[held_out] = grade_sets(probabilities[held_out], rules.level)
    return probabilities, sets


def figures_of(probabilities: np.ndarray, grades: np.ndarray) -> dict:
    """`FIGURES`, cross-entropy and calibration error, with the error that chance alone makes."""
    figures = grade_metrics(probabilities, grades)
    return {name: figures[name] for name in (*FIGURES, "cross_entropy", "expected_calibration_error")} | {
        "calibration_error_by_chance": float(calibration_errors_by_chance(probabilities).mean())
    }


def set_figures(sets: np.ndarray, grades: np.ndarray) -> dict:
    """Coverage, overall and by grade and size, and sizes of prediction sets, int (n, 2)."""
    inside, sizes = (sets[:, 0] <= grades) & (grades <= sets[:, 1]), sets[:, 1] - sets[:, 0] + 1
    return {
        "coverage": float(inside.mean()),
        "coverage_by_grade": [float(inside[grades == g].mean()) if (grades == g).any() else None for g in range(5)],
        "mean_size": float(sizes.mean()),
        "sizes": {int(size): int((sizes == size).sum()) for size in np.unique(sizes)},
        "coverage_by_size": {int(size): float(inside[sizes == size].mean()) for size in np.unique(sizes)},
    }


def calibration_errors_by_chance(
    probabilities: np.ndarray, repeats: int = 1000, bins: int = CALIBRATION_BINS
) -> np.ndarray:
    """Expected calibration errors, float (repeats,), of grades drawn from the probabilities themselves."""
    random = np.random.default_rng(0)
    cumulative = probabilities.cumsum(1)
    errors = []
    for _ in range(repeats):
        drawn = (random.random((len(probabilities), 1)) > cumulative[:, :-1]).sum(1)
        errors.append(expected_calibration_error(probabilities, drawn, bins))
    return np.array(errors)
