"""Calibrated probabilities, the grade read from them, and its prediction set.

All are functions of a knee's five logits and of a few numbers that `train/calibrate.py` fits on held-out knees:

- temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599): softmax(logits / temperature);
- the grade: the one with the least expected |distance|^power from the reader's (power 0: the most probable grade;
  1: the median of the probabilities), or the expected grade cut at four thresholds;
- prediction sets: contiguous ranges around the grade that hold the reader's grade in a stated share of knees, by split
  conformal prediction (Vovk et al. 2005; ordinal sets as in Lu et al. 2022, https://arxiv.org/abs/2207.02238).
"""

import numpy as np

from koa_hf.grades import NUM_GRADES

READ_OUTS = {
    0.0: "most probable grade",
    0.5: "grade with the least expected square root of the distance",
    1.0: "grade with the least expected distance (the median)",
    2.0: "expected grade, rounded",
}
"""Names of `read_grades` by its power."""

_GRADES = np.arange(NUM_GRADES)


def probabilities_of(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Logits float (n, 5) -> probabilities float64 (n, 5), rows summing to 1."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def expected_grade(probabilities: np.ndarray) -> np.ndarray:
    """Mean of the grades under the probabilities: (n, 5) -> (n,), 0 to 4."""
    return probabilities @ _GRADES


def read_grades(
    probabilities: np.ndarray, thresholds: tuple[float, ...] | None = None, power: float = 0.0
) -> np.ndarray:
    """One grade per knee, by decision theory or by thresholds.

    Args:
        probabilities: float (n, 5).
        thresholds: the grade is the number of them below the expected grade; `power` is then ignored.
        power: the grade is the one with the least expected |distance|^power from the reader's. 0: the most probable
            one (highest accuracy); 1: the median (least mean absolute error); 2: the expected grade, rounded (least
            mean square error). A lower power more rarely gives an improbable grade between two probable ones.

    Returns:
        int (n,).
    """
    if thresholds is not None:
        return (expected_grade(probabilities)[:, None] > np.asarray(thresholds)).sum(1)
    if power == 0:
        return probabilities.argmax(1)
    return (probabilities @ np.abs(_GRADES[:, None] - _GRADES) ** float(power)).argmin(1)


def set_scores(probabilities: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Conformity score of each grade, float (n, 5), 0 to 1: a grade is in the set if it scores at least the level.

    1 for the chosen grade; for any other the highest probability among it and the grades beyond it, away from the
    chosen one. The grades above any level are therefore contiguous and include the chosen one, and they are the fewest
    that include every grade of that probability: the "least ambiguous" sets of Sadinle et al. 2019
    (https://arxiv.org/abs/1609.00451), made contiguous.

    Args:
        probabilities: float (n, 5).
        chosen: int (n,), the grade that the set is built around.
    """
    outwards_up = np.maximum.accumulate(probabilities[:, ::-1], axis=1)[:, ::-1]
    outwards_down = np.maximum.accumulate(probabilities, axis=1)
    scores = np.where(chosen[:, None] < _GRADES, outwards_up, outwards_down)
    scores[np.arange(len(chosen)), chosen] = 1.0
    return scores


def grade_sets(probabilities: np.ndarray, chosen: np.ndarray, level: float) -> np.ndarray:
    """Lowest and highest grade of each knee's prediction set, int (n, 2), both included."""
    inside = set_scores(probabilities, chosen) >= level
    return np.stack([inside.argmax(1), NUM_GRADES - 1 - inside[:, ::-1].argmax(1)], axis=1)
