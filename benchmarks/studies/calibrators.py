"""Calibrators other than a temperature for the bundled model's probabilities, on validation.

    python benchmarks/studies/calibrators.py results/strong

Reads predictions.csv of an evaluation; the logarithms of its probabilities are logits over the model's own temperature,
which every calibrator here can undo. Each is cross-fitted over patients in ten folds, as in `train/calibrate.py`:
temperature (1 parameter); temperature and bias (6); vector scaling (10: a factor and a bias per grade; Guo et al. 2017,
https://arxiv.org/abs/1706.04599); none. Perfect probabilities would show some calibration error by chance: its mean and
range are given. Writes calibrators.json into the folder.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from benchmarks.reporting import print_table, write_result
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.calibration import read_grades
from koa_hf.grading.metrics import bootstrap_mean, expected_calibration_error, grade_metrics
from train.fitting.cross_fit import calibration_errors_by_chance, folds_of
from train.loop.predictions import Predictions
from train.loop.recipe import POWERS

MODELS = "the model's own"  # its temperature, fitted on all of these knees
SPREAD = 0.5  # standard deviation of the normal prior on log factors and biases, around the identity
CALIBRATORS = {MODELS: (0, 0), "temperature": (1, 0), "temperature and bias": (1, NUM_GRADES), "vector scaling": (5, 5)}
"""Name -> number of factors, number of biases."""


def scaled(logits: np.ndarray, parameters: np.ndarray, factors: int, biases: int) -> np.ndarray:
    """Log probabilities, float (n, 5)."""
    factor = np.exp(parameters[:factors]) if factors else 1.0
    return log_softmax(logits * factor + (parameters[factors:] if biases else 0.0), axis=1)


def fit(logits: np.ndarray, grades: np.ndarray, factors: int, biases: int) -> np.ndarray:
    """Maximum likelihood parameters; with biases, maximum a posteriori under the prior."""
    if not factors + biases:
        return np.zeros(0)

    def cost(parameters: np.ndarray) -> float:
        unlikely = -scaled(logits, parameters, factors, biases)[np.arange(len(grades)), grades].sum()
        return unlikely + (np.square(parameters / SPREAD).sum() / 2 if biases else 0.0)

    return minimize(cost, np.zeros(factors + biases), method="BFGS").x


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an evaluation, as train/validate.py or train/bundle.py writes it")
    parser.add_argument("--read-out", choices=POWERS, default="root_distance", help="default: %(default)s")
    args = parser.parse_args(argv)
    found = Predictions.read(args.folder)
    grades, patients, logits = found.grades, found.patients, found.logits
    rows, losses = [], {}
    for name, counts in CALIBRATORS.items():
        held_out = np.empty_like(logits)
        for rest, part in folds_of(patients):
            held_out[part] = scaled(logits[part], fit(logits[rest], grades[rest], *counts), *counts)
        probabilities = np.exp(held_out)
        losses[name] = -held_out[np.arange(len(grades)), grades]
        more = losses[name] - losses["temperature"] if "temperature" in losses else np.zeros(len(grades))
        figures = grade_metrics(probabilities, grades, read_grades(probabilities, power=POWERS[args.read_out]))
        chance = calibration_errors_by_chance(probabilities)
        low, high = np.percentile(chance, (2.5, 97.5))
        rows.append(
            {
                "calibrator": name,
                "numbers": sum(counts),
                "calibration_error": round(expected_calibration_error(probabilities, grades), 4),
                "by_chance": round(float(chance.mean()), 4),
                "by_chance_95": [round(float(low), 4), round(float(high), 4)],
                **{key: round(figures[key], 4) for key in ("accuracy", "quadratic_weighted_kappa")},
                "cross_entropy": round(float(losses[name].mean()), 4),
                "cross_entropy_more_than_temperature": round(float(more.mean()), 4) if name != MODELS else None,
                "cross_entropy_more_95": [round(value, 4) for value in bootstrap_mean(more, patients)]
                if name not in (MODELS, "temperature")
                else None,
            }
        )
    what = "calibrators on held-out patients of validation"
    write_result(
        args.folder / "calibrators.json", {"what": what, "read_out": args.read_out, "knees": len(grades), "rows": rows}
    )
    print_table(what, [{key: value for key, value in row.items() if key != "cross_entropy_more_95"} for row in rows])


if __name__ == "__main__":
    sys.exit(main())
