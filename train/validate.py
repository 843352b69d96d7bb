"""Measure a model on one split of a data set.

    accelerate launch train/validate.py --model models/koa-xception --dataset data/knee-kl
    accelerate launch train/validate.py --model user/koa-xception --dataset user/knee-kl --split test
    accelerate launch train/validate.py --model runs/paper --dataset data/knee-kl --plain --output-dir results/paper
    accelerate launch --multi_gpu --num_processes 4 train/validate.py --model ...

Takes a model folder or Hub id and a data set, nothing else. Prints tables; writes metrics.json, predictions.csv and
confusion_matrix.png into --output-dir.
"""

import argparse
import shlex
import sys
from pathlib import Path

from accelerate import Accelerator, DataLoaderConfiguration

from koa_hf import Grader
from koa_hf.data.load import commit_of, load_dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.network.engine_names import ENGINES, PRECISIONS
from train.loop.device import share_cores
from train.loop.evaluation import evaluate_model, write_evaluation
from train.loop.knee_images import KneeImages, choose_split


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or an id on the Hub")
    parser.add_argument("--model-revision", help="branch, tag or commit of the model on the Hub")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument(
        "--configuration", default="default", help="default, or auto_test (the crops of the release's detector)"
    )
    parser.add_argument("--split", default="validation", help="train, validation (default) or test")
    parser.add_argument("--output-dir", help="default: runs/evaluation/MODEL-SPLIT")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: %(default)s")
    parser.add_argument("--engine", choices=ENGINES, default="torch", help="inference engine (default: %(default)s)")
    parser.add_argument(
        "--plain", action="store_true", help="ignore the model's grading.json: softmax and the most probable grade"
    )
    parser.add_argument("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="images over all processes (default: %(default)s)"
    )
    return parser.parse_args(argv)


def command_for_test_split(args: argparse.Namespace) -> str:
    """The command that measures the same model in the same way on a sealed test split."""
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
            print(f"for a sealed test split: {command_for_test_split(args)}")
    accelerator.end_training()


if __name__ == "__main__":
    sys.exit(main())
