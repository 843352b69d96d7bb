"""Robustness of a model's validation figures: targets, choice of read-out, calibration, prediction sets.

    python benchmarks/studies/scrutiny.py results/strong --before results/strong-start

Reads predictions.csv of the folder and of an earlier model, as `train/bundle.py` and `train/validate.py` write them.
Temperature and prediction sets are cross-fitted over patients in ten folds; intervals are over patients.

targets: share of bootstrap resamples that reach each target, and all of them.
read_out_chosen_elsewhere: the read-out chosen on nine tenths of the patients and measured on the last tenth.
against_before: differences from the earlier model on the same knees, with the same read-out.
calibration_by_bins: calibration error by number of bins, and what perfect probabilities show by chance.
calibration_by_grade: mean probability and frequency of each grade.
sets: coverage by size of the prediction set.

Writes scrutiny.json into the folder.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.reporting import print_table, write_result
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.calibration import read_grades
from koa_hf.grading.metrics import (
    bootstrap_mean,
    expected_calibration_error,
    grade_metrics,
    quadratic_weighted_kappa,
    resamples,
)
from train.fitting.cross_fit import calibration_errors_by_chance, cross_fit, folds_of
from train.loop.predictions import Predictions
from train.loop.recipe import POWERS

TARGETS = {"accuracy": 0.68, "quadratic_weighted_kappa": 0.81, "macro_auc": 0.89}  # of one network trained on CPUs
COMPARED = (*TARGETS, "balanced_accuracy", "mean_absolute_error", "cross_entropy")
BINS = (5, 10, 15, 20)
REPEATS = 1000


def figures_of(probabilities: np.ndarray, grades: np.ndarray, power: float, rows: np.ndarray) -> dict[str, float]:
    """`COMPARED` and the recall of each grade, on the given rows."""
    probabilities, grades = probabilities[rows], grades[rows]
    figures = grade_metrics(probabilities, grades, read_grades(probabilities, power=power))
    recalls = {f"recall of KL {grade}": recall for grade, recall in enumerate(figures["recall_by_grade"])}
    return {name: figures[name] for name in COMPARED} | recalls


def targets_held(samples: list[dict[str, float]]) -> dict[str, float]:
    """Share of samples that reach each target, and all of them."""
    held = {name: np.array([sample[name] >= least for sample in samples]) for name, least in TARGETS.items()}
    shares = {name: float(values.mean()) for name, values in held.items()}
    return shares | {"all of them": float(np.all(list(held.values()), axis=0).mean())}


def chosen_elsewhere(probabilities: np.ndarray, grades: np.ndarray, patients: np.ndarray) -> list[dict]:
    """A row per criterion: how often each read-out was chosen, and the figures on the patients left out."""
    read = {name: read_grades(probabilities, power=power) for name, power in POWERS.items()}

    def accuracy(way: str, rows: np.ndarray) -> float:
        return float((read[way] == grades)[rows].mean())

    def kappa(way: str, rows: np.ndarray) -> float:
        return quadratic_weighted_kappa(read[way][rows], grades[rows])

    criteria: dict[str, Callable[[str, np.ndarray], float]] = {
        "accuracy": accuracy,
        "quadratic_weighted_kappa": kappa,
        "their sum": lambda way, rows: accuracy(way, rows) + kappa(way, rows),
    }
    found = []
    for criterion, worth in criteria.items():
        predicted, chosen = np.empty(len(grades), int), []
        for rest, part in folds_of(patients):
            best = max(read, key=lambda way: worth(way, rest))
            chosen.append(best)
            predicted[part] = read[best][part]
        figures = grade_metrics(probabilities, grades, predicted)
        row = {"chosen by": criterion, "chosen": {way: chosen.count(way) for way in read if way in chosen}}
        found.append(row | {name: figures[name] for name in ("accuracy", "quadratic_weighted_kappa")})
    return found


def differences(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> list[dict]:
    """A row per figure: theirs, ours, the difference, and its 95 % interval.

    Args:
        ours, theirs: figures on all knees, followed by those on the same bootstrap resamples.
    """
    rows = []
    for name, our in ours[0].items():
        their = theirs[0][name]
        low, high = np.percentile([a[name] - b[name] for a, b in zip(ours[1:], theirs[1:], strict=True)], (2.5, 97.5))
        rows.append(
            {
                "figure": name,
                "before": their,
                "this model": our,
                "difference": our - their,
                "difference_95": [float(low), float(high)],
            }
        )
    return rows


def calibration_by_bins(probabilities: np.ndarray, grades: np.ndarray) -> list[dict]:
    rows = []
    for bins in BINS:
        chance = calibration_errors_by_chance(probabilities, REPEATS, bins)
        error = expected_calibration_error(probabilities, grades, bins)
        low, high = np.percentile(chance, (2.5, 97.5))
        by_chance = {"by_chance": float(chance.mean()), "by_chance_95": [float(low), float(high)]}
        rows.append({"bins": bins, "error": error, **by_chance})
    return rows


def calibration_by_grade(probabilities: np.ndarray, grades: np.ndarray, patients: np.ndarray) -> list[dict]:
    rows = []
    for grade in range(NUM_GRADES):
        told, is_it = probabilities[:, grade], grades == grade
        rows.append(
            {
                "grade": grade,
                "mean_probability": float(told.mean()),
                "frequency": float(is_it.mean()),
                "difference": float((told - is_it).mean()),
                "difference_95": bootstrap_mean(told - is_it, patients),
            }
        )
    return rows


def sets_by_size(fitted: dict) -> list[dict]:
    sets = fitted["sets"]
    return [
        {"size": size, "knees": knees, "coverage": sets["coverage_by_size"][size]}
        for size, knees in sets["sizes"].items()
    ]


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an evaluation, as train/validate.py or train/bundle.py writes it")
    parser.add_argument("--before", required=True, type=Path, help="evaluation of the earlier model on the same split")
    parser.add_argument(
        "--read-out", choices=POWERS, default="root_distance", help="the model's (default: %(default)s)"
    )
    parser.add_argument("--coverage", type=float, default=0.9, help="coverage of the sets (default: %(default)s)")
    args = parser.parse_args(argv)
    found, before = Predictions.of_the_same_knees([args.folder, args.before])
    grades, patients = found.grades, found.patients
    fitted, of_before = (
        cross_fit(one.logits, grades, patients, args.read_out, args.coverage) for one in (found, before)
    )
    ours, theirs = fitted["probabilities"], of_before["probabilities"]
    rows = [np.arange(len(grades)), *resamples(patients, REPEATS)]
    samples = {
        way: [[figures_of(one, grades, POWERS[way], some) for some in rows] for one in (ours, theirs)]
        for way in dict.fromkeys((args.read_out, "most_probable"))
    }
    held = targets_held(samples[args.read_out][0][1:])
    against = {way: differences(*both) for way, both in samples.items()}
    result = {
        "what": "robustness of the validation figures, on held-out patients",
        "read_out": args.read_out,
        "before": str(args.before),
        "knees": len(grades),
        "targets": {"least": TARGETS, "held_in_share_of_resamples": held},
        "read_out_chosen_elsewhere": chosen_elsewhere(ours, grades, patients),
        "against_before": against,
        "calibration_by_bins": calibration_by_bins(ours, grades),
        "calibration_by_grade": calibration_by_grade(ours, grades, patients),
        "sets": {"coverage": fitted["sets"]["coverage"], "by_size": sets_by_size(fitted)},
    }
    write_result(args.folder / "scrutiny.json", result)
    print_table("Targets: share of resamples that reach them", [held])
    print_table(
        "Read-out chosen on other patients",
        rounded(result["read_out_chosen_elsewhere"]),
    )
    for way, found_more in against.items():
        print_table(f"Against {args.before}, {way}", rounded(found_more))
    for name in ("calibration_by_bins", "calibration_by_grade"):
        print_table(name, rounded(result[name]))
    print_table("Prediction sets by size", rounded(result["sets"]["by_size"]))


def rounded(rows: list[dict]) -> list[dict]:
    """Rows with short numbers, for the terminal."""

    def cell(value):
        if isinstance(value, float):
            return f"{value:.3f}"
        return " to ".join(f"{one:+.3f}" for one in value) if isinstance(value, list | tuple) else value

    return [{name: cell(value) for name, value in row.items()} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
