"""Temperature, thresholds and prediction-set level fitted to logits, and cross-fitting over patients."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import differential_evolution, minimize_scalar
from scipy.special import log_softmax
from sklearn.model_selection import GroupKFold

from koa_hf.grading.calibration import expected_grade, grade_sets, probabilities_of, read_grades, set_scores
from koa_hf.grading.metrics import CALIBRATION_BINS, expected_calibration_error, grade_metrics, quadratic_weighted_kappa
from train.loop.recipe import POWERS

FOLDS = 10

TIE = 0.01
"""Two most probable grades nearer than this are a tie: either may come out ahead in another arithmetic."""

ROUNDING = (0.5, 1.5, 2.5, 3.5)  # thresholds that round the expected grade to the nearest one
FIGURES = ("accuracy", "balanced_accuracy", "quadratic_weighted_kappa", "mean_absolute_error", "macro_auc")
_TEMPERATURES = (0.05, 20.0)


def fit_temperature(logits: np.ndarray, grades: np.ndarray) -> float:
    """Maximum-likelihood temperature, over 0: logits float (n, 5), grades int (n,)."""

    def cross_entropy(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(grades)), grades].mean()

    return float(np.exp(minimize_scalar(cross_entropy, bounds=np.log(_TEMPERATURES), method="bounded").x))


def fit_thresholds(probabilities: np.ndarray, grades: np.ndarray) -> tuple[float, float, float, float]:
    """Thresholds on the expected grade with the highest quadratic weighted kappa; float (n, 5), int (n,)."""
    expected = expected_grade(probabilities)

    def disagreement(thresholds: np.ndarray) -> float:
        kappa = quadratic_weighted_kappa((expected[:, None] > thresholds).sum(1), grades)
        # A weak penalty, towards rounding, decides between thresholds of equal kappa.
        return -(kappa or 0.0) + 1e-3 * np.square(thresholds - ROUNDING).sum()

    # Kappa is a step function of the thresholds, so that gradient descent gets stuck.
    within = [(threshold - 0.5, threshold + 0.5) for threshold in ROUNDING]
    found = differential_evolution(disagreement, within, x0=ROUNDING, rng=0, popsize=30, tol=1e-4, polish=False)
    return tuple(float(value) for value in np.sort(found.x))


def fit_set_level(probabilities: np.ndarray, chosen: np.ndarray, grades: np.ndarray, coverage: float = 0.9) -> float:
    """The level of `set_scores` at which prediction sets cover a new knee's grade with probability `coverage`.

    Args:
        probabilities: float (n, 5).
        chosen: int (n,), the grades read from them.
        grades: int (n,), the reader's.
        coverage: over 0, under 1.
    """
    of_reader = np.sort(set_scores(probabilities, chosen)[np.arange(len(grades)), grades])
    rank = int(np.floor((1 - coverage) * (len(grades) + 1)))
    return float(of_reader[rank - 1]) if rank else 0.0


@dataclass(frozen=True)
class Fitted:
    """Parameters fitted to the logits of some knees."""

    temperature: float
    thresholds: tuple[float, ...] | None
    power: float
    level: float

    @classmethod
    def to(cls, logits: np.ndarray, grades: np.ndarray, read_out: str, coverage: float) -> "Fitted":
        temperature = fit_temperature(logits, grades)
        probabilities = probabilities_of(logits, temperature)
        thresholds = fit_thresholds(probabilities, grades) if read_out == "tuned" else None
        power = POWERS.get(read_out, 0.0)
        chosen = read_grades(probabilities, thresholds, power)
        return cls(temperature, thresholds, power, fit_set_level(probabilities, chosen, grades, coverage))


def folds_of(patients: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to fit on, rows to measure on) for each fold; both knees of a patient are in the same fold."""
    split = GroupKFold(min(FOLDS, len(np.unique(patients))), shuffle=True, random_state=0)
    return list(split.split(np.empty(len(patients)), groups=patients))


def cross_fit(logits: np.ndarray, grades: np.ndarray, patients: np.ndarray, read_out: str, coverage: float) -> dict:
    """Probabilities, grades and sets of every knee by rules fitted to other patients only, and their metrics."""
    probabilities = np.empty(logits.shape)
    chosen, sets = np.empty(len(grades), int), np.empty((len(grades), 2), int)
    for fit, held_out in folds_of(patients):
        rules = Fitted.to(logits[fit], grades[fit], read_out, coverage)
        probabilities[held_out] = probabilities_of(logits[held_out], rules.temperature)
        chosen[held_out] = read_grades(probabilities[held_out], rules.thresholds, rules.power)
        sets[held_out] = grade_sets(probabilities[held_out], chosen[held_out], rules.level)
    figures = grade_metrics(probabilities, grades, chosen)
    inside = (sets[:, 0] <= grades) & (grades <= sets[:, 1])
    sizes = sets[:, 1] - sets[:, 0] + 1
    return {
        "probabilities": probabilities,
        "figures": {name: figures[name] for name in (*FIGURES, "cross_entropy", "expected_calibration_error")},
        "sets": {
            "coverage": float(inside.mean()),
            "coverage_by_grade": [float(inside[grades == g].mean()) if (grades == g).any() else None for g in range(5)],
            "mean_size": float(sizes.mean()),
            "sizes": {int(size): int((sizes == size).sum()) for size in np.unique(sizes)},
            "coverage_by_size": {int(size): float(inside[sizes == size].mean()) for size in np.unique(sizes)},
        },
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
