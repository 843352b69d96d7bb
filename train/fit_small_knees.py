"""Fit what a model has to know of small knees, and write it into its model folder (grading.json).

    python train/fit_small_knees.py --model models/koa-xception --dataset data/knee-kl --results results/strong

Validation knees are reduced to a few widths and graded. For each width, the five numbers are fitted that bring the
logits back to what the network says of the same knees in full (`koa_hf.grading.small_knees`); the readers' grades are not used.
What that is worth is measured on patients that it wasn't fitted to. Written: grading.json into the model folder,
resolution.json and resolution.png into --results.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset as HubDataset
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import minimize
from scipy.special import log_softmax

from koa_hf import Grader, checksums
from koa_hf.data.load import load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import replacing, write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.calibration import expected_grade
from koa_hf.grading.rules import Rules
from koa_hf.grading.small_knees import FULL_WIDTH, SmallKnees
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.progress import progress_bar
from train.fitting.cross_fit import folds_of
from train.loop.knee_images import choose_split

WIDTHS = (90, 120, 160, 195)
"""Pixels: knees at 0.4 to 0.87 of the size of the release's crops."""

KNEES = 400
_BATCH = 8
_PULL = 1e-3  # towards no shift, so that a grade that hardly occurs is left alone


def fit_shift(logits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Five numbers that, added to `logits`, bring their probabilities nearest to `wanted`.

    Args:
        logits: float (n, 5), over the model's temperature.
        wanted: float (n, 5), probabilities.

    Returns:
        float (5,).
    """

    def distance(shift: np.ndarray) -> float:
        return -(wanted * log_softmax(logits + shift, axis=1)).sum(1).mean() + _PULL * np.square(shift).sum()

    return minimize(distance, np.zeros(NUM_GRADES)).x


def logits_of(grader: Grader, knees: list[Image.Image], what: str) -> np.ndarray:
    """Logits by the grader's rules but for the temperature, and without any shift: float32 (n, 5)."""
    found = []
    with progress_bar(what, len(knees), show=True) as advance:
        for i in range(0, len(knees), _BATCH):
            xrays = (Radiograph(np.asarray(knee), "knee") for knee in knees[i : i + _BATCH])
            seen = torch.stack([grader.preprocessing(grader.rules.righted(xray).xray) for xray in xrays])
            found.append(grader.forward(seen).logits.cpu().numpy())
            for _ in seen:
                advance()
    return np.concatenate(found)


def fit_small_knees(grader: Grader, validation: HubDataset, count: int = KNEES) -> tuple[SmallKnees, dict]:
    """The rule for small knees of a grader, whatever rule it has now; and the report of what the rule is worth.

    Args:
        validation: knees of at least `FULL_WIDTH` pixels.
        count: how many knees, of whole patients, drawn at random and always the same.

    Raises:
        KoaError: the knees are too small to be reduced.
    """
    patients = np.array(validation["patient_id"])
    order = np.random.default_rng(0).permutation(np.unique(patients))
    rows = np.concatenate([np.flatnonzero(patients == patient) for patient in order])[:count]
    chosen, patients = validation.select(rows), patients[rows]
    knees = [image.convert("L") for image in chosen["image"]]
    if any(min(knee.size) < FULL_WIDTH for knee in knees):
        raise KoaError(f"the validation knees have to be {FULL_WIDTH} pixels wide or more to be reduced.")
    temperature = grader.rules.temperature or 1.0
    full = grader.rules.probabilities(logits_of(grader, knees, "knees in full"))
    grades = grader.rules.grades(full)
    shifts, table = [], []
    for width in WIDTHS:
        reduced = [knee.resize((width, width), Image.Resampling.LANCZOS) for knee in knees]
        logits = logits_of(grader, reduced, f"knees {width} pixels wide") / temperature
        shifts.append(tuple((fit_shift(logits, full) * temperature).round(4).tolist()))
        held_out = logits.copy()
        for fit, rest in folds_of(patients):
            held_out[rest] += fit_shift(logits[fit], full[fit])
        row = {"width": width}
        for name, values in (("before", logits), ("held_out", held_out)):
            probabilities = np.exp(log_softmax(values, axis=1))
            moved, read = expected_grade(probabilities) - expected_grade(full), grader.rules.grades(probabilities)
            row[name] = {
                "grade_kept": float((read == grades).mean()),
                "expected_grade_moved": float(moved.mean()),
                "expected_grade_moved_either_way": float(np.abs(moved).mean()),
                "readers_grade": float((read == chosen["label"]).mean()),
            }
        table.append(row)
    report = {
        "knees": len(knees),
        "patients": len(np.unique(patients)),
        "readers_grade_in_full": float((grades == chosen["label"]).mean()),
        "precision": grader.precision,
        "engine": grader.engine,
        "widths": table,
    }
    return SmallKnees(widths=WIDTHS, shifts=tuple(shifts)), report


def write_small_knees(rules: Rules, small_knees: SmallKnees, report: dict, model_folder: Path, out: Path) -> None:
    """Write all rules into the model folder, the report and its picture into `out`."""
    rules.model_copy(update={"small_knees": small_knees}).save(model_folder)
    checksums.write_checksums(model_folder)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "resolution.json", json.dumps(report, indent=2) + "\n")
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    kept, moved = figure.subplots(1, 2)
    widths = [row["width"] for row in report["widths"]]
    for name, label, style in (("before", "as the network says", "o--"), ("held_out", "by the rule, held out", "o-")):
        kept.plot(widths, [row[name]["grade_kept"] for row in report["widths"]], style, label=label)
        moved.plot(widths, [row[name]["expected_grade_moved"] for row in report["widths"]], style, label=label)
    kept.set(xlabel="width of the knee, pixels", ylabel="share that keeps its grade", ylim=(0.5, 1))
    moved.set(xlabel="width of the knee, pixels", ylabel="mean shift of the expected grade")
    moved.axhline(0, color="0.7", lw=0.8)
    kept.legend(frameon=False, fontsize=8)
    with replacing(out / "resolution.png") as partial:
        figure.savefig(partial, format="png", dpi=120)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a model folder; its grading.json gets the rule")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--results", type=Path, help="for report and picture (default: the model folder)")
    parser.add_argument("--knees", type=int, default=KNEES, metavar="N", help="validation knees (default: %(default)s)")
    args = parser.parse_args(argv)
    grader = Grader.from_pretrained(args.model)
    validation = choose_split(load_dataset(args.dataset, revision=args.revision), "validation", args.dataset)
    small_knees, report = fit_small_knees(grader, validation, args.knees)
    write_small_knees(grader.rules, small_knees, report, args.model, args.results or args.model)
    print(json.dumps(report["widths"], indent=2))


if __name__ == "__main__":
    sys.exit(main())
