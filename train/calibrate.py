"""Fit the grading rules of a trained network and write them into its model folder (grading.json).

    python train/calibrate.py --model runs/strong --dataset data/knee-kl --output-dir runs/strong/calibration
    python train/calibrate.py --model runs/strong --dataset user/knee-kl --revision v1.0 --device cuda

Fitted on the validation split, by the `grading` section of the run's recipe: temperature of the probabilities, level
of the prediction sets, and the distance over which an image is out of distribution. All figures
are cross-fitted over patients. The out-of-distribution detector is chosen by its catch rate; its figure for a kind of
image is also given for the choice made without that kind.
Writes grading.json into the model folder; calibration.json, reliability.png and familiarity.png into --output-dir.
"""

import argparse
import sys
from pathlib import Path

from koa_hf import Grader
from koa_hf.data.load import load_dataset
from koa_hf.errors import exit_2_on_bad_input
from train.fitting.rule_fitting import add_fitting_options, fit_rules, grading_options_of, write_calibration


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a finished run's folder; gets grading.json")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--output-dir", type=Path, help="for report and figures (default: the model folder)")
    parser.add_argument("--device", help="cpu, cuda, ...; by default a GPU where there is one")
    add_fitting_options(parser)
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    options = grading_options_of(args.model)
    grader = Grader.from_pretrained(
        args.model, device=args.device, precision=args.precision, plain=True, engine="torch"
    )
    data = load_dataset(args.dataset, revision=args.revision)
    rules, report = fit_rules(grader, options, data, args.dataset, args.training_knees, args.images_per_kind)
    out = args.output_dir or args.model
    write_calibration(rules, report, args.model, out)
    print(f"rules written to {args.model}, report to {out}")


if __name__ == "__main__":
    sys.exit(main())
