"""Ensemble of several models: mean probabilities, most probable grade.

    python benchmarks/studies/ensemble.py runs/strong runs/strong2 --output results/strong-start/ensemble.json

Reads predictions.csv of each, as `train/validate.py` and `train/bundle.py` write it. The bundled model is one network.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grading.metrics import bootstrap_intervals, grade_metrics
from train.loop.predictions import Predictions


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="evaluations of the same split by different models")
    parser.add_argument("--output", required=True, type=Path, help="JSON file to write")
    args = parser.parse_args()
    members = Predictions.of_the_same_knees(args.folders)
    first = members[0]
    grades, mean = first.grades, np.mean([member.probabilities for member in members], axis=0)
    result = {
        "members": [str(folder) for folder in args.folders],
        "figures": grade_metrics(mean, grades),
        "intervals_95_by_patient": bootstrap_intervals(mean, grades, first.patients),
        "alone": [grade_metrics(member.probabilities, grades) for member in members],
    }
    write_text(args.output, json.dumps(result, indent=2) + "\n")
    for name, figures in zip([*args.folders, "ensemble"], [*result["alone"], result["figures"]], strict=True):
        print(f"{name}: accuracy {figures['accuracy']:.3f}, QWK {figures['quadratic_weighted_kappa']:.3f}, "
              f"MAE {figures['mean_absolute_error']:.3f}, macro AUC {figures['macro_auc']:.3f}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
