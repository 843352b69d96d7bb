"""Measure a model on one split of a data set.

    accelerate launch train/evaluate.py --model runs/paper --dataset data/knee-kl --split validation
    accelerate launch train/evaluate.py --model user/koa-xception --dataset user/knee-kl --split test

Needs nothing but a model folder (or Hub id) and a data set. Prints a table and writes metrics.json,
predictions.csv and confusion_matrix.png into --output-dir.
"""

import argparse
import contextlib
import csv
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

# A script's own folder comes first on the path: there evaluate.py would hide the library `evaluate`. The project's
# folder takes its place, so that nothing has to be installed.
HERE = Path(__file__).resolve().parent
sys.path = [str(HERE.parent), *(path for path in sys.path if path != str(HERE))]

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader

from koa_hf import Grader, dataset, dataset_hub
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.metrics import KneeGradeMetrics, bootstrap_intervals, table_rows
from koa_hf.precision import PRECISIONS
from koa_hf.preprocess import normalise
from train import plots
from train.data import KneeImages, choose_split
from train.device import mixed_precision, share_cores
from train.predict import predict


@dataclass(frozen=True)
class Evaluation:
    """What a model said of one split, and what that is worth."""

    split: str
    probabilities: np.ndarray  # float (images, 5)
    grades: np.ndarray  # int (images,)
    file_names: list[str]
    figures: dict
    intervals: dict[str, tuple[float, float]]  # 95 %, by patient
    precision: str


def evaluate_model(
    accelerator: Accelerator, model: nn.Module, images: KneeImages, split: str, batch_size: int, autocast: bool = True
) -> Evaluation:
    """Grade every image of a split once, over all processes, and compute figures with bootstrap intervals.

    Args:
        batch_size: images over all processes.
        autocast: False computes in float32 whatever the accelerator's precision, as the Grader does.
    """
    model = model.to(accelerator.device, memory_format=torch.channels_last)
    loader = accelerator.prepare(DataLoader(images, batch_size))

    def input_of(batch: dict) -> torch.Tensor:
        return normalise(batch["pixels"]).contiguous(memory_format=torch.channels_last)

    with accelerator.autocast() if autocast else contextlib.nullcontext():
        logits, labels = predict(accelerator, model, loader, input_of, f"grading {split}")
    probabilities, grades = logits.softmax(1).numpy(), labels.numpy()
    main = accelerator.is_main_process
    return Evaluation(
        split=split,
        probabilities=probabilities,
        grades=grades,
        file_names=list(images.split["file_name"]),
        figures=KneeGradeMetrics().compute(predictions=probabilities, references=grades) if main else {},
        intervals=bootstrap_intervals(probabilities, grades, images.split["patient_id"]) if main else {},
        precision="fp32" if not autocast or accelerator.mixed_precision == "no" else accelerator.mixed_precision,
    )


def write_evaluation(
    evaluation: Evaluation,
    folder: Path,
    model_name: str,
    dataset_name: str,
    model_revision: str | None = None,
    dataset_commit: str | None = None,
) -> None:
    """Write metrics.json, predictions.csv and confusion_matrix.png, and print the table.

    Args:
        model_revision: see `Grader.revision`.
        dataset_commit: of a data set on the Hub.
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
        "figures": figures,
        "intervals_95_by_patient": evaluation.intervals,
    }
    write_text(folder / "metrics.json", json.dumps(summary, indent=2) + "\n")
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["file_name", "grade", "predicted", *(f"p{grade}" for grade in range(NUM_GRADES))])
    for name, grade, row in zip(evaluation.file_names, evaluation.grades, evaluation.probabilities, strict=True):
        writer.writerow([name, grade, row.argmax(), *(f"{p:.5f}" for p in row)])
    write_text(folder / "predictions.csv", rows.getvalue())
    title = f"{model_name} on {evaluation.split}: {figures['images']} knees, accuracy {figures['accuracy']:.3f}"
    plots.confusion_matrix(figures["confusion_matrix"], title, folder / "confusion_matrix.png")

    table = Table(title=title)
    for column in ("figure", "value", "95 % interval"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for row in table_rows(figures, evaluation.intervals):
        table.add_row(*row)
    Console().print(table)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or an id on the Hub")
    parser.add_argument("--model-revision", help="branch, tag or commit of the model on the Hub")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--configuration", default="default", help="default, or auto_test (the detector's crops)")
    parser.add_argument("--split", default="validation", help="train, validation or test")
    parser.add_argument("--output-dir", help="default: runs/evaluation/MODEL-SPLIT")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="fp32 is what the Grader serves")
    parser.add_argument("--cpu", action="store_true", help="measure on the CPU even where there is a GPU")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="images over all processes")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    accelerator = Accelerator(
        cpu=args.cpu,
        mixed_precision=mixed_precision(args.precision, args.cpu),
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    share_cores(accelerator)
    with accelerator.main_process_first():
        grader = Grader.from_pretrained(args.model, args.model_revision, device=accelerator.device)
        data = dataset.load(args.dataset, args.configuration, args.revision)
    images = KneeImages(choose_split(data, args.split, args.dataset), grader.preprocessing)
    evaluation = evaluate_model(accelerator, grader.model, images, args.split, args.batch_size)
    if accelerator.is_main_process:
        name = Path(args.model).name
        out = Path(args.output_dir or f"runs/evaluation/{name}-{args.split}")
        write_evaluation(evaluation, out, args.model, args.dataset, grader.revision, dataset_hub.commit_of(data))
        print(f"written to {out}")
    accelerator.end_training()


if __name__ == "__main__":
    sys.exit(main())
