"""Would another calibrator than a temperature make the bundled model's probabilities mean more? On validation.

    python benchmarks/studies/calibrators.py results/strong

Reads the predictions.csv of a model; the logarithms of its probabilities are its logits over its own temperature, which
every calibrator here can undo. Each is fitted to nine tenths of the patients and measured on the last tenth, for each
tenth, as `train/calibrate.py` does: temperature (one number); temperature and bias (six); vector scaling (ten: a factor
and a bias for each grade; Guo et al. 2017, https://arxiv.org/abs/1706.04599); none. By chance alone probabilities that
were perfect would show some calibration error too: its mean and range are given. Writes calibrators.json beside it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from benchmarks.recording import record, show
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.calibration import read_grades
from koa_hf.grading.metrics import bootstrap_mean, expected_calibration_error, grade_metrics
from train.fitting.cross_fit import calibration_errors_by_chance, folds_of
from train.loop.predictions import Predictions
from train.loop.recipe import POWERS

ROOT = Path(__file__).resolve().parents[2]

MODELS = "the model's own"  # its rules' temperature, fitted on these very knees, is in the probabilities already
SPREAD = 0.5  # of the normal prior of logarithms of factors, and of biases, around doing nothing
CALIBRATORS = {MODELS: (0, 0), "temperature": (1, 0), "temperature and bias": (1, NUM_GRADES), "vector scaling": (5, 5)}
"""How many factors and how many biases each fits."""


def scaled(logits: np.ndarray, parameters: np.ndarray, factors: int, biases: int) -> np.ndarray:
    """Logarithms of probabilities, float (n, 5)."""
    factor = np.exp(parameters[:factors]) if factors else 1.0
    return log_softmax(logits * factor + (parameters[factors:] if biases else 0.0), axis=1)


def fit(logits: np.ndarray, grades: np.ndarray, factors: int, biases: int) -> np.ndarray:
    """What makes the reader's grades likeliest; more than a temperature is held back a little by a prior."""
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
    record(
        args.folder / "calibrators.json", {"what": what, "read_out": args.read_out, "knees": len(grades), "rows": rows}
    )
    show(what, [{key: value for key, value in row.items() if key != "cross_entropy_more_95"} for row in rows])


if __name__ == "__main__":
    sys.exit(main())
