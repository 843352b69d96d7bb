"""Shifts of the logits for knees of few pixels, fitted to the network's own output at full size."""

import json
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset as HubDataset
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import minimize
from scipy.special import log_softmax

from koa_hf import Grader, checksums
from koa_hf.errors import KoaError
from koa_hf.files import replacing, write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.calibration import expected_grade
from koa_hf.grading.rules import Rules
from koa_hf.grading.small_knees import FULL_WIDTH, SmallKnees
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.progress import progress_bar
from train.fitting.cross_fit import folds_of

WIDTHS = (90, 120, 160, 195)
"""Pixels: 0.4 to 0.87 of the size of the release's crops."""

KNEES = 400
_BATCH = 8
_PENALTY = 1e-3  # on the squared shift, so that a rare grade is left alone


def fit_shift(logits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The shift of the logits with the least cross-entropy towards `wanted`.

    Args:
        logits: float (n, 5), divided by the model's temperature.
        wanted: float (n, 5), probabilities.

    Returns:
        float (5,).
    """

    def cross_entropy(shift: np.ndarray) -> float:
        return -(wanted * log_softmax(logits + shift, axis=1)).sum(1).mean() + _PENALTY * np.square(shift).sum()

    return minimize(cross_entropy, np.zeros(NUM_GRADES)).x


def _logits(grader: Grader, knees: list[Image.Image], what: str) -> np.ndarray:
    """Logits by the grader's rules, before temperature and shift: float32 (n, 5)."""
    found = []
    with progress_bar(what, len(knees)) as advance:
        for i in range(0, len(knees), _BATCH):
            xrays = (Radiograph(np.asarray(knee), "knee") for knee in knees[i : i + _BATCH])
            seen = torch.stack([grader.preprocessing(grader.rules.righted(xray).xray) for xray in xrays])
            found.append(grader.forward(seen).logits.cpu().numpy())
            advance(len(seen))
    return np.concatenate(found)


def fit_shifts(grader: Grader, validation: HubDataset, count: int = KNEES) -> tuple[SmallKnees, dict]:
    """Fit a grader's rule for small knees, whatever rule it has now, and measure it on other patients.

    Args:
        validation: knees of at least `FULL_WIDTH` pixels.
        count: number of knees, of whole patients, drawn with a fixed seed.

    Returns:
        The rule, and the report as in resolution.json.

    Raises:
        KoaError: the knees are too small to be reduced.
    """
    patients = np.array(validation["patient_id"])
    order = np.random.default_rng(0).permutation(np.unique(patients))
    rows = np.concatenate([np.flatnonzero(patients == patient) for patient in order])[:count]
    chosen, patients = validation.select(rows), patients[rows]
    knees = [image.convert("L") for image in chosen["image"]]
    if any(min(knee.size) < FULL_WIDTH for knee in knees):
        raise KoaError(f"the validation knees must be at least {FULL_WIDTH} pixels wide, so that they can be reduced.")
    temperature = grader.rules.temperature or 1.0
    full = grader.rules.probabilities(_logits(grader, knees, "knees at full size"))
    grades = grader.rules.grades(full)
    shifts, table = [], []
    for width in WIDTHS:
        reduced = [knee.resize((width, width), Image.Resampling.LANCZOS) for knee in knees]
        logits = _logits(grader, reduced, f"knees {width} pixels wide") / temperature
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
    """Write all rules into the model folder, the report and its figure into `out`."""
    rules.model_copy(update={"small_knees": small_knees}).save(model_folder)
    checksums.write_checksums(model_folder)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "resolution.json", json.dumps(report, indent=2) + "\n")
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    kept, moved = figure.subplots(1, 2)
    widths = [row["width"] for row in report["widths"]]
    for name, label, style in (("before", "without the rule", "o--"), ("held_out", "with the rule, held out", "o-")):
        kept.plot(widths, [row[name]["grade_kept"] for row in report["widths"]], style, label=label)
        moved.plot(widths, [row[name]["expected_grade_moved"] for row in report["widths"]], style, label=label)
    kept.set(xlabel="width of the knee, pixels", ylabel="share with unchanged grade", ylim=(0.5, 1))
    moved.set(xlabel="width of the knee, pixels", ylabel="mean shift of the expected grade")
    moved.axhline(0, color="0.7", lw=0.8)
    kept.legend(frameon=False, fontsize=8)
    with replacing(out / "resolution.png") as partial:
        figure.savefig(partial, format="png", dpi=120)
