"""Audit a model: its worst mistakes, its recall by grade, and a deletion test of its heat maps.

    python train/audit.py --model models/koa-xception --dataset data/knee-kl --results results/bundle
    python train/audit.py --model user/koa-xception --dataset user/knee-kl --split test --results runs/evaluation/test

Reads predictions.csv, which `train/validate.py` wrote to --results. Writes audit.json, recall.png and deletion.png
there. The test is described in `train/loop/deletion_test.py`.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from koa_hf import Grader
from koa_hf.data.load import load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.calibration import expected_grade
from koa_hf.network.engine_names import PRECISIONS
from train.loop.deletion_test import delete_hottest, summarise_deletion
from train.loop.knee_images import KneeImages, choose_split
from train.loop.plots import plot_deletion, plot_recall
from train.loop.predictions import Predictions

SHOWN = 20  # worst mistakes


def worst_mistakes(predictions: Predictions) -> list[dict]:
    """The knees with the highest expected squared distance between predicted and reader's grade, worst first."""
    apart = np.arange(NUM_GRADES) - predictions.grades[:, None]
    distance = (predictions.probabilities * apart**2).sum(1)
    expected = expected_grade(predictions.probabilities)
    return [
        {
            "file_name": predictions.file_names[i],
            "reader": int(predictions.grades[i]),
            "predicted": int(predictions.predicted[i]),
            "probability_of_readers": round(float(predictions.probabilities[i, predictions.grades[i]]), 4),
            "expected_grade": round(float(expected[i]), 3),
            "mean_squared_distance": round(float(distance[i]), 3),
        }
        for i in np.argsort(-distance, kind="stable")[:SHOWN]
    ]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or an id on the Hub")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--results", required=True, type=Path, help="folder with predictions.csv of train/validate.py")
    parser.add_argument("--split", default="validation", help="split of these predictions (default: %(default)s)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="default: auto, which takes bf16 where it is faster"
    )
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    graded = Predictions.read(args.results)
    grader = Grader.from_pretrained(args.model, precision=args.precision, engine="torch")
    split = choose_split(load_dataset(args.dataset, revision=args.revision), args.split, args.dataset)
    if list(split["file_name"]) != graded.file_names:
        raise KoaError(
            f"predictions.csv in {args.results} is not of the {args.split} split of {args.dataset}; "
            "run train/validate.py on that split first."
        )
    found = delete_hottest(grader, KneeImages(split, grader.preprocessing, grader.rules))
    audit = {
        "model": args.model,
        "model_revision": grader.revision,
        "precision": grader.precision,
        "split": args.split,
        "deletion": summarise_deletion(found, np.array(split["patient_id"])),
        "worst_mistakes": worst_mistakes(graded),
    }
    write_text(args.results / "audit.json", json.dumps(audit, indent=2) + "\n")
    plot_deletion(found, args.results / "deletion.png")
    plot_recall(graded.grades, graded.predicted, args.results / "recall.png")

    console = Console()
    table = Table(title="worst mistakes")
    for column in audit["worst_mistakes"][0]:
        table.add_column(column.replace("_", " "))
    for row in audit["worst_mistakes"]:
        table.add_row(*map(str, row.values()))
    console.print(table)
    lost = ", ".join(f"{name} {loss:.3f}" for name, loss in audit["deletion"]["mean_loss"].items())
    console.print(f"probability lost {lost}; written to {args.results}")


if __name__ == "__main__":
    sys.exit(main())
