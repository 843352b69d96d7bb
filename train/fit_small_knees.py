"""Fit the rule for knees of few pixels and write it into the model folder (grading.json).

    python train/fit_small_knees.py --model models/koa-xception --dataset data/knee-kl --results results/strong
    python train/fit_small_knees.py --model runs/strong --dataset data/knee-kl --knees 100

Validation knees are reduced to several widths and graded. For each width, five numbers are fitted that shift the logits
towards the network's output on the same knees at full size (`koa_hf.grading.small_knees`); readers' grades are not
used. Measured on held-out patients. Writes grading.json into the model folder, resolution.json and resolution.png into
--results.
"""

import argparse
import json
import sys
from pathlib import Path

from koa_hf import Grader
from koa_hf.data.load import load_dataset
from koa_hf.errors import exit_2_on_bad_input
from train.fitting.small_knee_fitting import KNEES, fit_shifts, write_small_knees
from train.loop.knee_images import choose_split


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a model folder; its grading.json gets the rule")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--results", type=Path, help="for report and figure (default: the model folder)")
    parser.add_argument("--knees", type=int, default=KNEES, metavar="N", help="validation knees (default: %(default)s)")
    args = parser.parse_args(argv)
    grader = Grader.from_pretrained(args.model)
    validation = choose_split(load_dataset(args.dataset, revision=args.revision), "validation", args.dataset)
    small_knees, report = fit_shifts(grader, validation, args.knees)
    write_small_knees(grader.rules, small_knees, report, args.model, args.results or args.model)
    print(json.dumps(report["widths"], indent=2))


if __name__ == "__main__":
    sys.exit(main())
