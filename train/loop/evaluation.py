"""A pass over a split without training, its metrics with confidence intervals, and their files and tables."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from koa_hf import Grader
from koa_hf.files import write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.grading import calibration
from koa_hf.grading.metrics import KneeGradeMetrics, bootstrap_intervals, bootstrap_mean, table_rows
from koa_hf.grading.rules import Rules
from koa_hf.network.preprocess import normalise
from koa_hf.progress import ProgressBar
from train.loop.knee_images import KneeImages
from train.loop.plots import plot_confusion_matrix
from train.loop.predictions import Predictions

RULES_SHOWN = {"right_negatives", "right_upside_down", "temperature", "sets"}


@dataclass(frozen=True)
class Evaluation:
    """A grader's predictions on one split, by its rules, and their metrics.

    Attributes:
        probabilities: float64 (images, 5).
        predicted: int (images,), KL grades.
        unfamiliarity: float (images,), out of distribution over 1; None where the model can't tell.
        grades: int (images,), the reader's KL grades.
        figures: metric -> value; empty on all but the main process, as are the intervals.
        intervals: metric -> 95 % bootstrap interval, resampled by patient.
    """

    split: str
    probabilities: np.ndarray
    predicted: np.ndarray
    unfamiliarity: np.ndarray | None
    grades: np.ndarray
    file_names: list[str]
    rules: Rules
    figures: dict
    intervals: dict
    precision: str
    engine: str


@torch.no_grad()
def predict(
    accelerator: Accelerator,
    network: Callable[[torch.Tensor], torch.Tensor],
    loader: DataLoader,
    input_of: Callable[[dict], torch.Tensor],
    description: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a network over a split: every image once and in order, on all processes.

    Args:
        network: in evaluation mode; returns a row for each image.
        loader: prepared by the accelerator; batches hold `label`, and whatever `input_of` takes.
        input_of: batch -> input of the network.

    Returns:
        outputs float32 (images, ...), such as logits, and grades int64 (images,), both on the CPU.
    """
    outputs, grades = [], []
    for batch in ProgressBar(loader, description, unit="batch", disable=not accelerator.is_main_process):
        output = network(input_of(batch)).float()
        output, label = accelerator.gather_for_metrics((output, batch["label"]))
        outputs.append(output.cpu())
        grades.append(label.cpu())
    return torch.cat(outputs), torch.cat(grades)


def evaluate_model(
    accelerator: Accelerator, grader: Grader, images: KneeImages, split: str, batch_size: int
) -> Evaluation:
    """Grade every image of a split once, over all processes, and compute metrics with bootstrap intervals.

    Args:
        images: with the grader's preprocessing and rules.
        batch_size: images over all processes.
    """
    loader = accelerator.prepare(DataLoader(images, batch_size))

    def forward(batch: dict) -> torch.Tensor:
        output = grader.forward(normalise(batch["pixels"]))
        if output.unfamiliarity is None:
            return output.logits
        return torch.cat([output.logits, output.unfamiliarity[:, None]], 1)

    outputs, labels = predict(accelerator, forward, loader, lambda batch: batch, f"grading {split}")
    rules, grades = grader.rules, labels.numpy()
    logits, distance = np.split(outputs.numpy(), [NUM_GRADES], axis=1)
    probabilities = rules.probabilities(logits)
    predicted = probabilities.argmax(1)
    unfamiliarity = distance[:, 0] if rules.familiarity else None
    figures, intervals = {}, {}
    if accelerator.is_main_process:
        figures = KneeGradeMetrics().compute(predictions=probabilities, references=grades, predicted=predicted)
        patients, of_knees = images.split["patient_id"], {}
        if rules.sets:
            low, high = calibration.grade_sets(probabilities, rules.sets.level).T
            of_knees = {"set_coverage": (low <= grades) & (grades <= high), "mean_set_size": high - low + 1}
        if unfamiliarity is not None:
            of_knees["called_unfamiliar"] = unfamiliarity > 1
        figures |= {name: float(values.mean()) for name, values in of_knees.items()}
        intervals = bootstrap_intervals(probabilities, grades, patients, predicted)
        intervals |= {name: bootstrap_mean(values, patients) for name, values in of_knees.items()}
    return Evaluation(
        split=split,
        probabilities=probabilities,
        predicted=predicted,
        unfamiliarity=unfamiliarity,
        grades=grades,
        file_names=list(images.split["file_name"]),
        rules=rules,
        figures=figures,
        intervals=intervals,
        precision=grader.precision,
        engine=grader.engine,
    )


def write_evaluation(
    evaluation: Evaluation,
    folder: Path,
    model_name: str,
    dataset_name: str,
    model_revision: str | None = None,
    dataset_commit: str | None = None,
) -> None:
    """Write metrics.json, predictions.csv and confusion_matrix.png, and print the tables.

    Args:
        folder: made if it isn't there.
        model_revision: see `Grader.revision`.
        dataset_commit: of a data set on the Hub; None for a folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = evaluation.figures
    summary = {
        "model": model_name,
        "model_revision": model_revision,
        "dataset": dataset_name,
        "dataset_commit": dataset_commit,
        "split": evaluation.split,
        "precision": evaluation.precision,
        "engine": evaluation.engine,
        "rules": evaluation.rules.model_dump(mode="json", include=RULES_SHOWN),
        "figures": figures,
        "intervals_95_by_patient": evaluation.intervals,
    }
    write_text(folder / "metrics.json", json.dumps(summary, indent=2) + "\n")
    Predictions(
        evaluation.file_names,
        evaluation.grades,
        evaluation.predicted,
        evaluation.probabilities,
        evaluation.unfamiliarity,
    ).write(folder)
    title = f"{model_name} on {evaluation.split}: {figures['images']} knees, accuracy {figures['accuracy']:.3f}"
    plot_confusion_matrix(figures["confusion_matrix"], title, folder / "confusion_matrix.png")

    Console().print(_figures_table(title, table_rows(figures, evaluation.intervals)))


def _figures_table(title: str, rows: list[tuple[str, str, str]]) -> Table:
    table = Table(title=title)
    for column in ("figure", "value", "95 % interval"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for row in rows:
        table.add_row(*row)
    return table
