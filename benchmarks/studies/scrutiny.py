"""How far the validation figures of a model carry: what its targets, its choices and its probabilities rest on.

    python benchmarks/studies/scrutiny.py results/strong --before results/strong-start

Reads predictions.csv of the folder and of the model before it, as `train/bundle.py` and `train/validate.py` write them.
Everything is about held-out patients (temperature and sets fitted to nine tenths, measured on the last tenth, for each
tenth) and over patients, both knees together:

targets: in which share of resamples each target is held, and all of them at once.
read_out_chosen_elsewhere: the way of reading the grade, chosen on nine tenths of the patients by one figure or two,
    and measured on the last tenth.
against_before: differences from the model before on the same knees, both read in the same way.
calibration_by_bins: the error with fewer and with more bins, and what chance leaves of perfect probabilities.
calibration_by_grade: the mean probability of each grade and how often it is the reader's.
sets: in which share the reader's grade is in the range, by the size of the range.

Writes scrutiny.json into the folder.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.recording import record, show
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

ROOT = Path(__file__).resolve().parents[2]

TARGETS = {"accuracy": 0.68, "quadratic_weighted_kappa": 0.81, "macro_auc": 0.89}  # of one network trained on CPUs
COMPARED = (*TARGETS, "balanced_accuracy", "mean_absolute_error", "cross_entropy")
BINS = (5, 10, 15, 20)
REPEATS = 1000


def figures_of(probabilities: np.ndarray, grades: np.ndarray, power: float, rows: np.ndarray) -> dict[str, float]:
    """`COMPARED` and each grade's recall, on some of the knees."""
    probabilities, grades = probabilities[rows], grades[rows]
    figures = grade_metrics(probabilities, grades, read_grades(probabilities, power=power))
    recalls = {f"recall of KL {grade}": recall for grade, recall in enumerate(figures["recall_by_grade"])}
    return {name: figures[name] for name in COMPARED} | recalls


def targets_held(samples: list[dict[str, float]]) -> dict[str, float]:
    """The share of samples in which each target is held, and all."""
    held = {name: np.array([sample[name] >= least for sample in samples]) for name, least in TARGETS.items()}
    shares = {name: float(values.mean()) for name, values in held.items()}
    return shares | {"all of them": float(np.all(list(held.values()), axis=0).mean())}


def chosen_elsewhere(probabilities: np.ndarray, grades: np.ndarray, patients: np.ndarray) -> list[dict]:
    """A row for each criterion: how often each power won, and what the choice is worth on the patients left out."""
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
    """A row for each figure: theirs, ours, the difference, and its interval.

    Args:
        ours, theirs: figures on all knees first, then on the same resamples of them.
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
    parser.add_argument("--before", required=True, type=Path, help="one of another model on the same split")
    parser.add_argument(
        "--read-out", choices=POWERS, default="root_distance", help="the model's (default: %(default)s)"
    )
    parser.add_argument("--coverage", type=float, default=0.9, help="stated by the ranges (default: %(default)s)")
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
        "what": "how far the validation figures carry, on held-out patients",
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
    record(args.folder / "scrutiny.json", result)
    show("Targets: held in this share of resamples", [held])
    show("Read-out chosen on nine tenths, measured on the last", rounded(result["read_out_chosen_elsewhere"]))
    for way, found_more in against.items():
        show(f"Against {args.before}, {way}", rounded(found_more))
    for name in ("calibration_by_bins", "calibration_by_grade"):
        show(name, rounded(result[name]))
    show("Ranges by size", rounded(result["sets"]["by_size"]))


def rounded(rows: list[dict]) -> list[dict]:
    """For printing."""

    def cell(value):
        if isinstance(value, float):
            return f"{value:.3f}"
        return " to ".join(f"{one:+.3f}" for one in value) if isinstance(value, list | tuple) else value

    return [{name: cell(value) for name, value in row.items()} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
