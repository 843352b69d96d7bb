"""Fit the localiser of knees on composites of the release's training crops.

    python train/fit_localiser.py --dataset data/knee-kl
    python train/fit_localiser.py --dataset data/knee-kl --films 300 --output runs/localiser.safetensors

Takes minutes on one core. Uses the train split only: nine tenths of its patients to fit, the last tenth for thresholds
and Platt scaling. `benchmarks/studies/knee_finding.py` measures on the validation split.
"""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from koa_hf.data.load import dataset_fingerprint, load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import replacing
from koa_hf.imaging import localiser
from koa_hf.imaging.localiser import Finder
from train.fitting.localiser_films import OTHER_KINDS, draw_training_films, knee_pairs
from train.fitting.localiser_training import train_finder
from train.pictures import not_knees

FILMS = 2500
LEAST_FILMS = 100


def save_finder(finder: Finder, path: Path, fitted_on: dict) -> None:
    """Write a finder's weights as float16, with `fitted_on` as JSON in the file's metadata."""
    tensors = {
        field.name: np.asarray(getattr(finder, field.name), np.float32).astype(np.float16) for field in fields(finder)
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"fitted_on": json.dumps(fitted_on)})
        partial.chmod(0o644)  # safetensors creates files that only their owner can read


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--films", type=int, default=FILMS, help="training composites (default: %(default)s)")
    parser.add_argument("--images-per-kind", type=int, default=40, metavar="N",
                        help="pictures without a knee of each kind (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--output", type=Path, default=localiser.WEIGHTS_FILE, help="default: the file that koa_hf uses"
    )
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.films < LEAST_FILMS:
        raise KoaError(f"--films is {args.films}; give {LEAST_FILMS} or more.")
    data = load_dataset(args.dataset, revision=args.revision)
    pairs = knee_pairs(data, "train", args.dataset)
    crops = [crop.pixels for pair in pairs[:200] for crop in pair]
    others = [picture for kind in OTHER_KINDS for picture in not_knees.images(kind, crops, args.images_per_kind)]
    finder = train_finder(draw_training_films(pairs, args.films, others, args.seed), args.seed)
    fitted_on = {
        "dataset": args.dataset,
        "split": "train",
        "fingerprint": dataset_fingerprint(data["train"]),
        "patients": len(pairs),
        "films": args.films,
        "kinds_without_a_knee": OTHER_KINDS,
        "images_per_kind": args.images_per_kind,
        "seed": args.seed,
    }
    save_finder(finder, args.output, fitted_on)
    print(f"{args.output}: {args.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
