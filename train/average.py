"""Average the weights of two runs: a network, and the one that continued it.

    python train/average.py runs/strong-gpu runs/robust-polish --dataset data/knee-kl --output-dir runs/averaged
    python train/average.py user/first runs/second --share 0.3 --dataset data/knee-kl --output-dir runs/averaged

A network that continues another one learns what is new to it and forgets a little of the rest; a point between their
weights has most of both (WiSE-FT: Wortsman et al. 2022, https://arxiv.org/abs/2109.01903). Batch statistics are
averaged likewise. The output folder is that of the second run with the mean weights, measured on validation.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from accelerate import Accelerator

from koa_hf import Grader
from koa_hf.data.load import commit_of, load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.hub import model_card
from koa_hf.network import xception
from koa_hf.network.model_folder import RECIPE_BEFORE_FILE, find_model
from train.loop.device import share_cores
from train.loop.evaluation import evaluate_model, write_evaluation
from train.loop.knee_images import KneeImages, choose_split
from train.loop.recipe import load_recipe

KEPT = ("recipe.yaml", "run.json", "metrics.jsonl", "curves.png")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="model folder or Hub id")
    parser.add_argument("second", type=Path, help="folder of the finished run that continued it")
    parser.add_argument("--share", type=float, default=0.5, help="of the second in the mean (default: %(default)s)")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--output-dir", required=True, type=Path, help="new folder")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="default: %(default)s")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if not 0 <= args.share <= 1:
        raise KoaError(f"--share is {args.share}; give a number from 0 to 1.")
    if args.output_dir.exists() and any(args.output_dir.iterdir()):
        raise KoaError(f"{args.output_dir} is not empty; choose another --output-dir.")
    if missing := [name for name in KEPT if not (args.second / name).is_file()]:
        raise KoaError(f"{args.second} is not the folder of a finished run: it has no {missing[0]}.")
    plan, first = load_recipe(args.second / "recipe.yaml"), find_model(args.first)
    (before, _), (model, preprocessing) = (xception.load_model(folder) for folder in (first.folder, args.second))
    xception.average(model, before, args.share)

    accelerator = Accelerator()
    share_cores(accelerator)
    data = load_dataset(args.dataset)
    grader = Grader(model, preprocessing, device=accelerator.device)
    images = KneeImages(choose_split(data, "validation", args.dataset), preprocessing)
    evaluation = evaluate_model(accelerator, grader, images, "validation", args.batch_size)

    out = args.output_dir
    xception.save_model(model, out, plan.image_size, plan.note)
    for name in (*KEPT, *filter(lambda name: (args.second / name).is_file(), [RECIPE_BEFORE_FILE])):
        shutil.copyfile(args.second / name, out / name)
    run = json.loads((out / "run.json").read_text())
    run["averaged_with"] = {"model": first.model_id, "revision": first.revision, "share_of_this_run": args.share}
    write_text(out / "run.json", json.dumps(run, indent=2) + "\n")
    write_evaluation(evaluation, out, plan.name, args.dataset, dataset_commit=commit_of(data))
    model_card.write(out)
    print(f"mean of {args.first} and {args.second} in {out}")


if __name__ == "__main__":
    sys.exit(main())
