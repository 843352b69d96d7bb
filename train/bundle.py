"""Turn a finished run into the model that ships: float16 weights, fitted rules, metrics, card.

    python train/bundle.py --run runs/polished --dataset data/knee-kl --output runs/koa-xception --results runs/report
    python train/bundle.py --run runs/polished --grading coverage=0.95 ...

In order: store the weights as float16 and compare the grades with float32; fit grading.json (`train/calibrate.py`);
measure on the validation split by these rules (`train/validate.py`); write the card.
--output becomes the model folder as on the Hub; --results gets reports, figures and predictions, and the metrics
without rules as plain.json.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from koa_hf import Grader
from koa_hf.data.load import commit_of, load_dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grading.calibration import probabilities_of
from koa_hf.hub import model_card
from koa_hf.network import xception
from koa_hf.network.model_folder import RECIPE_BEFORE_FILE
from train.fitting.cross_fit import TIE
from train.fitting.layer_features import extract_features
from train.fitting.rule_fitting import add_fitting_options, fit_rules, write_calibration
from train.loop import run_record
from train.loop.evaluation import evaluate_model, write_evaluation
from train.loop.knee_images import KneeImages, choose_split
from train.loop.recipe import load_recipe
from train.loop.settings import check_empty, check_finished_run

RECORD = ("run.json", "metrics.jsonl", "curves.png")
"""Files of the run that are kept beside the model."""


def grade_changes(one: Grader, other: Grader, images: KneeImages) -> dict:
    """Changed grades and probabilities between two copies of a network, without rules."""
    found = (
        extract_features(xception.folded(grader.model), grader.precision, images, f"knees with {grader.model_id}")
        for grader in (one, other)
    )
    first, second = (probabilities_of(features.logits) for features in found)
    changed = first.argmax(1) != second.argmax(1)
    ordered = np.sort(first, axis=1)
    ties = ordered[:, -1] - ordered[:, -2] < TIE
    return {
        "knees": len(images),
        "grades_changed": int(changed.sum()),
        "of_these_ties": int((changed & ties).sum()),
        "tie_below": TIE,
        "largest_probability_change": float(abs(first - second).max()),
    }


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, help="a finished run's folder")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--output", required=True, type=Path, help="the model folder to write")
    parser.add_argument("--results", required=True, type=Path, help="folder for reports and figures")
    parser.add_argument("--name", help="of the model in the results (default: the output folder)")
    parser.add_argument("--grading", action="append", default=[], metavar="KEY=VALUE",
                        help="change a key of the recipe's grading section, such as coverage=0.95")  # fmt: skip
    add_fitting_options(parser)
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check_empty(args.output, "choose another --output, or remove it")
    check_finished_run(args.run, ("recipe.yaml", *RECORD))
    plan = load_recipe(args.run / "recipe.yaml", [f"grading.{override}" for override in args.grading])
    accelerator = Accelerator()
    how = {"device": accelerator.device, "precision": args.precision, "engine": "torch"}
    trained = Grader.from_pretrained(args.run, **how, plain=True)
    data = load_dataset(args.dataset, revision=args.revision)
    validation = choose_split(data, "validation", args.dataset)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output.parent) as temporary:  # the model folder appears whole
        folder = Path(temporary, args.output.name)
        xception.save_model(trained.model, folder, plan.image_size, plan.note, torch.float16)
        for name in RECORD:
            shutil.copyfile(args.run / name, folder / name)
        write_text(folder / "recipe.yaml", plan.to_yaml())
        if (args.run / RECIPE_BEFORE_FILE).is_file():
            shutil.copyfile(args.run / RECIPE_BEFORE_FILE, folder / RECIPE_BEFORE_FILE)
        stored = Grader.from_pretrained(folder, **how, plain=True)

        difference = grade_changes(trained, stored, KneeImages(validation, stored.preprocessing))
        write_text(args.results / "float16.json", json.dumps(difference, indent=2) + "\n")
        print(f"float16 against float32: {difference}")

        rules, report = fit_rules(stored, plan.grading, data, args.dataset, args.training_knees, args.images_per_kind)
        write_calibration(rules, report, folder, args.results)

        grader = Grader.from_pretrained(folder, **how)
        images = KneeImages(validation, grader.preprocessing, grader.rules)
        evaluation = evaluate_model(accelerator, grader, images, "validation", 16)
        name = args.name or str(args.output)
        write_evaluation(evaluation, args.results, name, args.dataset, grader.revision, commit_of(data))
        for kept in ("metrics.json", "confusion_matrix.png"):
            shutil.copyfile(args.results / kept, folder / kept)
        run_record.copy_files(folder, (*RECORD, "recipe.yaml"), args.results)
        shutil.copyfile(args.run / "metrics.json", args.results / "plain.json")
        model_card.write(folder)
        if args.output.exists():
            args.output.rmdir()
        folder.rename(args.output)
    print(f"model in {args.output}, reports in {args.results}")


if __name__ == "__main__":
    sys.exit(main())
