"""Fit the finder of knees on composites of the release's training crops.

    python train/fit_localiser.py --dataset data/knee-kl
    python train/fit_localiser.py --dataset data/knee-kl --films 300 --output runs/localiser.safetensors

Minutes on one core. Only the train split is used: nine tenths of its patients to fit, the last tenth to set thresholds
and to scale the scores. `benchmarks/studies/knee_finding.py` measures on the validation split.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
from datasets import DatasetDict
from safetensors.numpy import save_file

from koa_hf.data.load import dataset_fingerprint, load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import replacing
from koa_hf.grades import NUM_GRADES
from koa_hf.imaging import collimation, localiser, phantom
from koa_hf.imaging.localiser import Finder, Views
from train.fitting.localiser_training import Film, Training, each, fit
from train.loop.knee_images import choose_split
from train.pictures import not_knees
from train.pictures.composites import BOTH, KINDS, Composite, Crop, compose, mirrored

FILMS = 2500
KIND_SHARES = (0.3, 0.3, 0.1, 0.1, 0.1, 0.1)  # of KINDS, among the films to fit on
PHANTOMS = 0.08  # of the crops to fit on are drawn: they are the demo's examples
SIZES = (80, 150)  # width of the crops on the films, pixels
OTHER_KINDS = (
    "texture",
    "photograph",
    "white noise",
    "smooth noise",
    "text page",
    "CT slice",
    "chest X-ray",
    "leg X-ray",
    "drawn hand X-ray",
)
"""Kinds of `train.pictures.not_knees` to fit on as pictures without a knee; the others are left for the benchmark."""

LEAST_FILMS = 100
_HELD_OUT = 0.1  # of the patients of the train split

Pair = tuple[Crop, Crop]
"""A patient's right and left knee."""


def film_of(composite: Composite) -> Film:
    grey, (x0, y0, _, _) = collimation.trim(composite.pixels)
    left, top, right, bottom = np.array(composite.boxes, float).T
    knees = np.column_stack([(left + right) / 2 - x0, (top + bottom) / 2 - y0, right - left])
    return Film(Views(grey), knees, composite.sides)


def draw_film(pairs: Sequence[Pair], seed: tuple[int, ...]) -> Composite:
    """A composite to fit on: of every kind, any knee or its mirror image, or a drawn one."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(KINDS, p=KIND_SHARES))
    if rng.random() < PHANTOMS:
        grade, drawn = int(rng.integers(NUM_GRADES)), int(rng.integers(2**31))
        pair = [Crop(phantom.draw_knee(grade, drawn, side), side) for side in ("right", "left")]
    else:
        pair = list(pairs[rng.integers(len(pairs))])
    if rng.random() < 0.5:
        pair = [mirrored(crop) for crop in pair[::-1]]
    if not (kind in BOTH or (kind == "collimated" and rng.random() < 0.5)):
        pair = [pair[rng.integers(2)]]
    return compose(kind, pair, rng, int(rng.integers(*SIZES)))


def draw(pairs: Sequence[Pair], number: int, others: Sequence[np.ndarray], seed: int) -> Training:
    """Draw all that a finder is fitted on.

    Args:
        pairs: knees of the train split, by patient.
        number: how many films to draw.
        others: pictures without a knee, uint8 (height, width).
    """
    order = np.random.default_rng(seed).permutation(len(pairs))
    held_out = max(1, round(_HELD_OUT * len(pairs)))
    apart, fitted = [pairs[i] for i in order[:held_out]], [pairs[i] for i in order[held_out:]]
    numbered = [(fitted, (seed, 0, i)) for i in range(number)] + [(apart, (seed, 1, i)) for i in range(number // 6)]
    films = each("drawing films", numbered, lambda item: film_of(draw_film(*item)))
    return Training(
        films[:number],
        films[number:],
        [Film(Views(collimation.trim(picture)[0]), np.empty((0, 3)), ()) for picture in others],
        [Views(crop.pixels) for pair in apart for crop in pair],
    )


def save(finder: Finder, path: Path, fitted_on: dict) -> None:
    """Write a finder in half precision; `fitted_on` goes into the file's metadata as JSON."""
    tensors = {
        field.name: np.asarray(getattr(finder, field.name), np.float32).astype(np.float16) for field in fields(finder)
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"fitted_on": json.dumps(fitted_on)})
        partial.chmod(0o644)  # safetensors makes files that only their owner can read


def pairs_of(data: DatasetDict, split: str, source: str) -> list[Pair]:
    """Right and left knee of each patient of a split who has both, in the order of the patients."""
    knees: dict[str, dict[str, Crop]] = {}
    for row in choose_split(data, split, source):
        crop = Crop(np.asarray(row["image"].convert("L")), row["side"])
        knees.setdefault(row["patient_id"], {})[crop.side] = crop
    pairs = [(knees[patient]["right"], knees[patient]["left"]) for patient in sorted(knees) if len(knees[patient]) == 2]
    if not pairs:
        raise KoaError(f"the {split} split of {source} has no patient with both knees.")
    return pairs


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--films", type=int, default=FILMS, help="composites to fit on (default: %(default)s)")
    parser.add_argument("--images-per-kind", type=int, default=40, metavar="N",
                        help="pictures without a knee, of each of several kinds (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=localiser.WEIGHTS_FILE, help="default: the file in use")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.films < LEAST_FILMS:
        raise KoaError(f"--films is {args.films}; fitting takes {LEAST_FILMS} or more.")
    data = load_dataset(args.dataset, revision=args.revision)
    pairs = pairs_of(data, "train", args.dataset)
    crops = [crop.pixels for pair in pairs[:200] for crop in pair]
    others = [picture for kind in OTHER_KINDS for picture in not_knees.images(kind, crops, args.images_per_kind)]
    finder = fit(draw(pairs, args.films, others, args.seed), args.seed)
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
    save(finder, args.output, fitted_on)
    print(f"{args.output}: {args.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
