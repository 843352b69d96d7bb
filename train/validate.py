"""Measure a model on one split of a data set.

    accelerate launch train/validate.py --model runs/paper --dataset data/knee-kl --split validation
    accelerate launch train/validate.py --model user/koa-xception --dataset user/knee-kl --split test

Needs nothing but a model folder (or Hub id) and a data set. Prints a table and writes metrics.json,
predictions.csv and confusion_matrix.png into --output-dir.
"""

import argparse
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from koa_hf import Grader
from koa_hf.data.load import commit_of, load_dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.grading import calibration
from koa_hf.grading.metrics import KneeGradeMetrics, bootstrap_intervals, bootstrap_mean, grade_metrics, table_rows
from koa_hf.grading.rules import Rules
from koa_hf.network.engine_names import ENGINES, GRADER_PRECISIONS
from koa_hf.network.preprocess import normalise
from train.loop import plots
from train.loop.device import share_cores
from train.loop.knee_images import KneeImages, choose_split
from train.loop.predict import predict
from train.loop.predictions import Predictions

BY_READ_OUT = ("accuracy", "balanced_accuracy", "quadratic_weighted_kappa", "mean_absolute_error", "macro_f1")
RULES_SHOWN = {
    *("flip_average", "right_negatives", "right_upside_down", "temperature", "power", "thresholds"),
    *("sets", "small_knees"),
}


@dataclass(frozen=True)
class Evaluation:
    """What a grader said of one split, and what that is worth."""

    split: str
    probabilities: np.ndarray  # float64 (images, 5), by the model's rules
    predicted: np.ndarray  # int (images,), by the model's rules
    unfamiliarity: np.ndarray | None  # float (images,), over 1 is unfamiliar
    grades: np.ndarray  # int (images,), the reader's
    file_names: list[str]
    rules: Rules
    figures: dict
    intervals: dict  # 95 %, by patient, as `bootstrap_intervals` has them
    precision: str
    engine: str


def evaluate_model(
    accelerator: Accelerator, grader: Grader, images: KneeImages, split: str, batch_size: int
) -> Evaluation:
    """Grade every image of a split once, over all processes, and compute figures with bootstrap intervals.

    Args:
        images: preprocessed as the grader has it, and righted by it.
        batch_size: images over all processes.
    """
    loader = accelerator.prepare(DataLoader(images, batch_size))

    def judge(batch: dict) -> torch.Tensor:
        output = grader.forward(normalise(batch["pixels"]))
        columns = [output.logits, batch["width"][:, None]]
        if output.unfamiliarity is not None:
            columns.append(output.unfamiliarity[:, None])
        return torch.cat(columns, 1)

    judged, labels = predict(accelerator, judge, loader, lambda batch: batch, f"grading {split}")
    rules, grades = grader.rules, labels.numpy()
    logits, width, *distance = np.split(judged.numpy(), (NUM_GRADES, NUM_GRADES + 1), axis=1)
    probabilities = rules.probabilities(rules.at_width(logits, width[:, 0]))
    predicted = rules.grades(probabilities)
    unfamiliarity = distance[0][:, 0] if rules.familiarity else None
    figures, intervals = {}, {}
    if accelerator.is_main_process:
        figures = KneeGradeMetrics().compute(predictions=probabilities, references=grades, predicted=predicted)
        patients, of_knees = images.split["patient_id"], {}
        if rules.sets:
            low, high = calibration.grade_sets(probabilities, predicted, rules.sets.level).T
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


def read_outs(evaluation: Evaluation) -> dict[str, dict]:
    """Figures for each way of reading a grade from the probabilities: name -> figures that depend on it."""
    ways = {words: (None, power) for power, words in calibration.READ_OUTS.items()}
    if evaluation.rules.thresholds is not None:
        ways["expected grade by the model's thresholds"] = (evaluation.rules.thresholds, 0.0)
    found = {}
    for name, way in ways.items():
        predicted = calibration.read_grades(evaluation.probabilities, *way)
        figures = grade_metrics(evaluation.probabilities, evaluation.grades, predicted)
        found[name] = {key: figures[key] for key in BY_READ_OUT}
    return found


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
        model_revision: see `Grader.revision`.
        dataset_commit: of a data set on the Hub.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = evaluation.figures
    ways = read_outs(evaluation)
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
        "read_outs": ways,
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
    plots.confusion_matrix(figures["confusion_matrix"], title, folder / "confusion_matrix.png")

    console = Console()
    console.print(figures_table(title, table_rows(figures, evaluation.intervals)))
    console.print(read_outs_table(ways))


def figures_table(title: str, rows: list[tuple[str, str, str]]) -> Table:
    table = Table(title=title)
    for column in ("figure", "value", "95 % interval"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for row in rows:
        table.add_row(*row)
    return table


def read_outs_table(ways: dict[str, dict]) -> Table:
    table = Table(title="the grade read as")
    table.add_column("")
    for key in BY_READ_OUT:
        table.add_column(key.replace("_", " "), justify="right")
    for name, figures in ways.items():
        table.add_row(name, *("undefined" if figures[key] is None else f"{figures[key]:.4f}" for key in BY_READ_OUT))
    return table


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or an id on the Hub")
    parser.add_argument("--model-revision", help="branch, tag or commit of the model on the Hub")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--configuration", default="default", help="default, or auto_test (the detector's crops)")
    parser.add_argument("--split", default="validation", help="train, validation or test")
    parser.add_argument("--output-dir", help="default: runs/evaluation/MODEL-SPLIT")
    parser.add_argument("--precision", choices=GRADER_PRECISIONS, default="fp32", help="fp32 is what the Grader serves")
    parser.add_argument("--engine", choices=ENGINES, default="torch", help="what computes (default: %(default)s)")
    parser.add_argument("--plain", action="store_true", help="leave the model's grading.json aside: argmax of softmax")
    parser.add_argument("--cpu", action="store_true", help="measure on the CPU even where there is a GPU")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="images over all processes")
    return parser.parse_args(argv)


def on_sealed_test_split(args: argparse.Namespace) -> str:
    """The command that measures the same model in the same way there; the data set is the reader's to name."""
    command = ["accelerate", "launch", "train/validate.py", "--split", "test", "--dataset", "BUILT_DATASET_WITH_TEST"]
    command += ["--model", args.model]
    if args.model_revision:
        command += ["--model-revision", args.model_revision]
    if args.plain:
        command.append("--plain")
    if (args.precision, args.engine) != ("fp32", "torch"):
        command += ["--precision", args.precision, "--engine", args.engine]
    return shlex.join(command)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    accelerator = Accelerator(
        cpu=args.cpu,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    share_cores(accelerator)
    with accelerator.main_process_first():
        grader = Grader.from_pretrained(
            args.model, args.model_revision, accelerator.device, args.precision, args.plain, args.engine
        )
        data = load_dataset(args.dataset, args.configuration, args.revision)
    images = KneeImages(choose_split(data, args.split, args.dataset), grader.preprocessing, grader.rules)
    evaluation = evaluate_model(accelerator, grader, images, args.split, args.batch_size)
    if accelerator.is_main_process:
        name = Path(args.model).name
        out = Path(args.output_dir or f"runs/evaluation/{name}-{args.split}")
        write_evaluation(evaluation, out, args.model, args.dataset, grader.revision, commit_of(data))
        print(f"written to {out}")
        if args.split != "test":
            print(f"on a sealed test split: {on_sealed_test_split(args)}")
    accelerator.end_training()


if __name__ == "__main__":
    sys.exit(main())
