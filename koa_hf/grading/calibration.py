"""Calibrated probabilities and prediction sets. The grade is the most probable one.

Both are functions of a knee's five logits and of a few numbers that `train/calibrate.py` fits on held-out knees:

- temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599): softmax(logits / temperature);
- prediction sets: contiguous ranges around the most probable grade that hold the reader's grade in a stated share of
  knees, by split conformal prediction (Vovk et al. 2005; ordinal sets as in Lu et al. 2022, https://arxiv.org/abs/2207.02238).
"""

import numpy as np

from koa_hf.grades import NUM_GRADES

_GRADES = np.arange(NUM_GRADES)


def probabilities_of(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Logits float (n, 5) -> probabilities float64 (n, 5), rows summing to 1."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def expected_grade(probabilities: np.ndarray) -> np.ndarray:
    """Mean of the grades under the probabilities: (n, 5) -> (n,), 0 to 4."""
    return probabilities @ _GRADES


def set_scores(probabilities: np.ndarray) -> np.ndarray:
    """Conformity score of each grade, float (n, 5), 0 to 1: a grade is in the set if it scores at least the level.

    1 for the most probable grade; for any other the highest probability among it and the grades beyond it, away from
    the most probable one. The grades above any level are therefore contiguous and include the most probable one, and
    they are the fewest that include every grade of that probability: the "least ambiguous" sets of Sadinle et al. 2019
    (https://arxiv.org/abs/1609.00451), made contiguous.

    Args:
        probabilities: float (n, 5).
    """
    chosen = probabilities.argmax(1)
    outwards_up = np.maximum.accumulate(probabilities[:, ::-1], axis=1)[:, ::-1]
    outwards_down = np.maximum.accumulate(probabilities, axis=1)
    scores = np.where(chosen[:, None] < _GRADES, outwards_up, outwards_down)
    scores[np.arange(len(chosen)), chosen] = 1.0
    return scores


def grade_sets(probabilities: np.ndarray, level: float) -> np.ndarray:
    """Lowest and highest grade of each knee's prediction set, int (n, 2), both included."""
    inside = set_scores(probabilities) >= level
    return np.stack([inside.argmax(1), NUM_GRADES - 1 - inside[:, ::-1].argmax(1)], axis=1)
