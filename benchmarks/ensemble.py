"""What several models are worth together: the mean of their probabilities, the most probable grade.

    python benchmarks/ensemble.py runs/strong runs/strong2 --output results/strong-start/ensemble.json

Reads the predictions.csv that `train/evaluate.py` and `train/bundle.py` write. Reported apart: the bundled model is one
network.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.metrics import bootstrap_intervals, grade_metrics


def read(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """File names, grades int (n,) and probabilities float (n, 5) of an evaluation."""
    try:
        with (folder / "predictions.csv").open(newline="") as opened:
            rows = list(csv.DictReader(opened))
    except OSError as error:
        raise KoaError(f"{folder} has no predictions.csv; give folders that train/evaluate.py wrote.") from error
    probabilities = np.array([[float(row[f"p{grade}"]) for grade in range(NUM_GRADES)] for row in rows])
    grades = np.array([int(row["grade"]) for row in rows])
    return [row["file_name"] for row in rows], grades, probabilities / probabilities.sum(1, keepdims=True)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="evaluations of the same split by different models")
    parser.add_argument("--output", required=True, type=Path, help="JSON file to write")
    args = parser.parse_args()
    names, grades, first = read(args.folders[0])
    members = [first]
    for folder in args.folders[1:]:
        other_names, _, probabilities = read(folder)
        if other_names != names:
            raise KoaError(f"{folder} is not about the same X-rays as {args.folders[0]}.")
        members.append(probabilities)
    mean = np.mean(members, axis=0)
    result = {
        "members": [str(folder) for folder in args.folders],
        "figures": grade_metrics(mean, grades),
        "intervals_95_by_patient": bootstrap_intervals(mean, grades, [name[:7] for name in names]),
        "alone": [grade_metrics(one, grades) for one in members],
    }
    write_text(args.output, json.dumps(result, indent=2) + "\n")
    for what, figures in zip([*args.folders, "together"], [*result["alone"], result["figures"]], strict=True):
        print(f"{what}: accuracy {figures['accuracy']:.3f}, QWK {figures['quadratic_weighted_kappa']:.3f}, "
              f"MAE {figures['mean_absolute_error']:.3f}, macro AUC {figures['macro_auc']:.3f}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
