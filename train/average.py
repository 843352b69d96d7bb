"""Average the weights of runs that continued one network.

    python train/average.py runs/polish-1 runs/polish-2 --dataset data/knee-kl --output-dir runs/averaged

Runs of one start that differ in their seed, or a little in their settings, end in one valley of the loss, and the mean
of their weights is better than most of them, at the price of one network (model soups: Wortsman et al. 2022,
https://arxiv.org/abs/2203.05482). Batch statistics are averaged likewise. Networks that started from different heads
have nothing in common to average. The output folder is that of the first run, with the mean weights, measured on
validation.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from accelerate import Accelerator

from koa_hf import Grader
from koa_hf.data.load import commit_of, load_dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.hub import model_card
from koa_hf.network import xception
from koa_hf.network.model_folder import RECIPE_BEFORE_FILE, find_model
from train.loop.device import share_cores
from train.loop.evaluation import evaluate_model, write_evaluation
from train.loop.knee_images import KneeImages, choose_split
from train.loop.recipe import load_recipe
from train.loop.settings import check_empty, check_finished_run

KEPT = ("recipe.yaml", "run.json", "metrics.jsonl", "curves.png")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="folder of a finished run, whose record goes with the mean")
    parser.add_argument("others", nargs="+", metavar="other", help="model folders or Hub ids")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--output-dir", required=True, type=Path, help="new folder")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="default: %(default)s")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check_empty(args.output_dir, "choose another --output-dir")
    check_finished_run(args.first, KEPT)
    plan, others = load_recipe(args.first / "recipe.yaml"), [find_model(name) for name in args.others]
    model, preprocessing = xception.load_model(args.first)
    xception.average(model, [xception.load_model(other.folder)[0] for other in others])

    accelerator = Accelerator()
    share_cores(accelerator)
    data = load_dataset(args.dataset)
    grader = Grader(model, preprocessing, device=accelerator.device)
    images = KneeImages(choose_split(data, "validation", args.dataset), preprocessing)
    evaluation = evaluate_model(accelerator, grader, images, "validation", args.batch_size)

    out = args.output_dir
    xception.save_model(model, out, plan.image_size, plan.note)
    for name in (*KEPT, RECIPE_BEFORE_FILE):
        if (args.first / name).is_file():
            shutil.copyfile(args.first / name, out / name)
    run = json.loads((out / "run.json").read_text())
    run["averaged_with"] = [{"model": other.model_id, "revision": other.revision} for other in others]
    write_text(out / "run.json", json.dumps(run, indent=2) + "\n")
    write_evaluation(evaluation, out, plan.name, args.dataset, dataset_commit=commit_of(data))
    model_card.write(out)
    print(f"the mean of {len(others) + 1} networks is in {out}")


if __name__ == "__main__":
    sys.exit(main())
