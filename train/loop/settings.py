"""Checks of a run's options, before any work and before anything is written."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from accelerate import Accelerator

from koa_hf.errors import KoaError
from koa_hf.hub import publish
from koa_hf.network.engine_names import from_accelerate
from train.loop import run_record
from train.loop.recipe import Recipe


def check_settings(plan: Recipe, args: argparse.Namespace, accelerator: Accelerator) -> None:
    """Check the options of `train/run.py` against the recipe, the output folder, the processes and the Hub.

    Raises:
        KoaError: an option can't be used; the message names it.
    """
    parts = accelerator.num_processes * args.accumulate
    if plan.batch_size % parts:
        raise KoaError(
            f"batch_size {plan.batch_size} can't be divided among {accelerator.num_processes} process(es) times "
            f"{args.accumulate} accumulation step(s); choose a multiple of {parts}."
        )
    if any(stage.mixup for stage in plan.stages) and plan.batch_size // parts % 2:
        raise KoaError(f"mixup blends pairs of images, so {plan.batch_size // parts} images a process can't be used.")
    check_start_model(plan, args.start_from)
    check_teachers(plan, args.teacher)
    check_output_folder(Path(args.output_dir), plan, args.resume)
    if args.push_to_hub and accelerator.is_main_process:  # now, and not after hours of training
        publish.check_push(args.push_to_hub, public=args.public)
    accelerator.wait_for_everyone()


def check_start_model(plan: Recipe, start_from: str | None) -> None:
    """`--start-from` is required by recipes with `weights: model`, and has no use for others."""
    if plan.weights == "model" and not start_from:
        raise KoaError(f"the recipe {plan.name} continues a finished run; name its folder or Hub id with --start-from.")
    if plan.weights != "model" and start_from:
        raise KoaError(
            f"the recipe {plan.name} starts from {plan.weights} weights, so --start-from has no use; leave it out, "
            "or add --set weights=model."
        )


def check_teachers(plan: Recipe, teachers: list[str]) -> None:
    """A recipe that distils needs teachers: `--teacher`, or else the model that it continues."""
    if plan.distils and not teachers and plan.weights != "model":
        raise KoaError(f"the recipe {plan.name} distils; name one or more finished runs with --teacher.")
    if teachers and not plan.distils:
        raise KoaError(f"the recipe {plan.name} doesn't distil, so --teacher has no use; leave it out.")


def check_output_folder(out: Path, plan: Recipe, resume: bool) -> None:
    """A new run needs an empty folder; a resumed one needs an unfinished run of the same recipe in it."""
    recipe_file = out / "recipe.yaml"
    if resume and not recipe_file.exists():
        raise KoaError(f"{out} holds no run to resume; leave out --resume to start one.")
    if resume and run_record.is_complete(out / "run.json"):
        raise KoaError(f"the run in {out} is finished; there is nothing to resume.")
    if resume and recipe_file.read_text() != plan.to_yaml():
        raise KoaError(f"the recipe differs from {recipe_file}; resume with the options that the run started with.")
    if not resume:
        check_empty(out, "continue its run with --resume, or choose another --output-dir")


def check_empty(out: Path, advice: str) -> None:
    """Refuse an output folder that has something in it.

    Raises:
        KoaError: it has; the message ends with the advice.
    """
    if out.exists() and any(out.iterdir()):
        raise KoaError(f"{out} is not empty; {advice}.")


def check_finished_run(folder: Path, files: Iterable[str]) -> None:
    """Refuse a folder that lacks one of these files of a finished run.

    Raises:
        KoaError: it does; the message names the first.
    """
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise KoaError(f"{folder} is not the folder of a finished run: it has no {missing[0]}.")


def requested_precision(args: argparse.Namespace) -> str:
    """`--precision`; for a resumed run with `auto`, the precision that the run started with."""
    earlier = Path(args.output_dir) / "run.json"
    if not (args.resume and args.precision == "auto" and earlier.exists()):
        return args.precision
    return from_accelerate(json.loads(earlier.read_text())["machine"]["precision"])
