"""Quantise a model's network to int8 with NNCF, in several ways, each held to a guard.

    python train/quantise.py --model models/koa-xception --dataset data/knee-kl --results results/int8
    python train/quantise.py --model models/koa-xception --dataset data/knee-kl --results results/int8 \\
        --attempts from_block_4 from_block_5 --write

The guard, on the validation knees: at least 99 % of the grades are those of the float32 network, and quadratic weighted
kappa changes by at most 0.003. Ranges are estimated from training knees, every other one mirrored. Each attempt is
added to attempts.json in --results as soon as it is measured. With --write, the passing attempt with the largest share
in int8 goes into the model folder as int8.safetensors, with its own calibration, and into the model card.
Needs `pip install -r requirements-dev.txt`.
"""

import argparse
import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from koa_hf import Grader, checksums
from koa_hf.data.load import load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.hub import model_card
from koa_hf.network import xception
from koa_hf.network.int8 import Int8, Int8Metadata
from train.fitting.quantisation import (
    ATTEMPTS,
    LARGEST_KAPPA_CHANGE,
    LEAST_UNCHANGED,
    forward_all,
    judge,
    network_pixels,
    try_attempt,
)
from train.fitting.rule_fitting import grading_options_of
from train.loop.knee_images import choose_split
from train.loop.run_record import git_commit


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or Hub id, with its grading rules")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--results", required=True, type=Path, help="folder for attempts.json")
    parser.add_argument("--attempts", nargs="+", choices=ATTEMPTS, default=list(ATTEMPTS), metavar="NAME",
                        help=f"default: all of {', '.join(ATTEMPTS)}")  # fmt: skip
    parser.add_argument("--knees", type=int, metavar="N", help="validation knees, drawn at random (default: all)")
    parser.add_argument("--write", action="store_true", help="write the best attempt that passes into the model folder")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        versions = {name: version(name) for name in ("nncf", "openvino", "torch")}
    except ImportError as error:
        raise KoaError(f"{error.name} is not installed; run `pip install -r requirements-dev.txt`.") from error
    if args.write and (args.knees or not Path(args.model).is_dir()):
        raise KoaError("--write needs a local model folder and all validation knees; leave out --knees.")
    grader = Grader.from_pretrained(args.model, device="cpu", engine="openvino")
    options = grading_options_of(Path(args.model))
    data = load_dataset(args.dataset)
    validation, train = (choose_split(data, split, args.dataset) for split in ("validation", "train"))
    random = np.random.default_rng(0)
    train = train.select(random.permutation(len(train))[: max(ATTEMPTS[name].knees for name in args.attempts)])
    if args.knees:
        validation = validation.select(np.sort(random.permutation(len(validation))[: args.knees]))
    training = network_pixels(train, grader, "training knees")
    knees = network_pixels(validation, grader, "validation knees")
    of_train = forward_all(grader, training, "training knees in float32")
    expected = forward_all(grader, knees, "validation knees in float32")
    grades, weights = np.array(validation["label"]), xception.fingerprint(grader.model)

    args.results.mkdir(parents=True, exist_ok=True)
    file = args.results / "attempts.json"
    measured = json.loads(file.read_text())["attempts"] if file.is_file() else {}
    best: tuple[float, Int8] | None = None
    for name in args.attempts:
        numbers, shift, found, share = try_attempt(ATTEMPTS[name], grader, weights, training, of_train, knees)
        verdict = {"share_in_int8": share, "knees": len(knees), **judge(found, expected, grades, grader, options)}
        verdict["refitted"]["shift"] = shift.tolist()
        measured[name] = {
            "how": dataclasses.asdict(ATTEMPTS[name]),
            **verdict,
            "model": f"{grader.model_id}, {grader.revision}",
            "packages": versions,
            "git_commit": git_commit(),
        }
        result = {
            "what": "int8 against float32, both by OpenVINO, on validation knees by the model's rules",
            "guard": {"least_unchanged": LEAST_UNCHANGED, "largest_kappa_change": LARGEST_KAPPA_CHANGE},
            "attempts": measured,
        }
        write_text(file, json.dumps(result, indent=2) + "\n")
        print(
            f"{name}: {verdict['grades_unchanged']:.2%} unchanged ({verdict['grades_changed']} changed, "
            f"{verdict['of_these_ties']} of them ties), kappa {verdict['kappa_change']:+.4f}, "
            f"{share:.0%} in int8: {'passes' if verdict['passes'] else 'fails'}",
            flush=True,
        )
        if verdict["passes"] and (best is None or share > best[0]):
            best = share, Int8(numbers, Int8Metadata(weights=weights, **verdict.pop("refitted"), measured=verdict))
    if args.write:
        if best is None:
            raise KoaError("no attempt passes the guard; the model folder is unchanged.")
        best[1].save(Path(args.model))
        checksums.write_checksums(args.model)
        model_card.write(Path(args.model))
        print(f"{args.model} has an int8 network with {best[0]:.0%} of the multiplications in int8")


if __name__ == "__main__":
    sys.exit(main())
