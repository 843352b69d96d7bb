"""The output folder of a run: begun with recipe and record, finished as a model folder, and published."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from koa_hf.errors import KoaError
from koa_hf.files import write_text
from koa_hf.hub import model_card, publish
from koa_hf.network import xception
from koa_hf.network.model_folder import RECIPE_BEFORE_FILE
from train.loop import run_record
from train.loop.evaluation import Evaluation, write_evaluation
from train.loop.knee_images import KneeImages
from train.loop.plots import plot_curves
from train.loop.recipe import Recipe
from train.loop.starting_weights import StartModel
from train.loop.trunk_cache import TrunkCache


def begin_run_folder(
    plan: Recipe,
    args: argparse.Namespace,
    accelerator: Accelerator,
    images: dict[str, KneeImages],
    fingerprints: dict[str, str],
    dataset_commit: str | None,
    start: StartModel | None,
    teachers: Sequence[StartModel],
    cached: bool,
) -> None:
    """Write recipe and record, start the tracker and print a summary. Called once all input has been checked.

    Args:
        args: of `train/run.py`.
        images: by split.
        fingerprints: of each split's content.
        dataset_commit: what id and revision of a data set on the Hub stood for; None for a folder.
        start: the model that the run continues.
        teachers: named by `--teacher`.
        cached: the trunk cache is on.
    """
    out, sizes = Path(args.output_dir), {split: len(part) for split, part in images.items()}
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "recipe.yaml", plan.to_yaml())
        if start is not None and (recipe_before := start.source.folder / "recipe.yaml").is_file():
            write_text(out / RECIPE_BEFORE_FILE, recipe_before.read_text())
        started_from = start and {"model": start.source.model_id, "revision": start.source.revision}
        taught_by = [{"model": one.source.model_id, "revision": one.source.revision} for one in teachers]
        run_record.begin_record(
            out / "run.json",
            accelerator,
            dict(vars(args)),
            fingerprints,
            sizes,
            dataset_commit,
            started_from,
            taught_by,
        )
    accelerator.init_trackers("tensorboard")
    accelerator.print(
        f"{plan.name}: {sizes['train']} training and {sizes['validation']} validation images, "
        f"{accelerator.num_processes} process(es) on {accelerator.device.type}, "
        f"precision {accelerator.mixed_precision}, trunk cache {'on' if cached else 'off'}"
    )


def finish_run_folder(
    plan: Recipe,
    args: argparse.Namespace,
    model: nn.Module,
    history: list[dict],
    evaluation: Evaluation,
    dataset_commit: str | None,
    cache: TrunkCache | None,
    began: float,
) -> None:
    """Complete the model folder: network, curves, metrics, predictions, record and card. Main process only.

    Args:
        history: rows of metrics.jsonl.
        evaluation: of the validation split.
        cache: the run's trunk cache, if it had one.
        began: `time.perf_counter` at the start of this process's work.
    """
    out = Path(args.output_dir)
    xception.save_model(model, out, plan.image_size, plan.note)
    plot_curves(history, out / "curves.png")
    write_evaluation(evaluation, out, plan.name, args.dataset, dataset_commit=dataset_commit)
    seconds = {
        "trunk_cache": None if cache is None else round(cache.seconds, 1),
        "epochs": round(sum(sum(row["seconds"].values()) for row in history), 1),
        "this_process": round(time.perf_counter() - began, 1),
        "this_process_of_processors": round(time.process_time(), 1),  # of all cores, and not while it is stopped
    }
    run_record.finish_record(out / "run.json", seconds)
    model_card.write(out)
    print(f"done in {seconds['this_process'] / 60:.1f} minutes: {out} is the model folder")


def publish_run(out: Path, repo_id: str, public: bool) -> None:
    """Push the model folder to the Hub. The run is complete by now, and stays so if this fails."""
    try:
        print(publish.push_model(out, repo_id, public=public).url)
    except KoaError as error:
        command = f"koa push model {out} {repo_id}" + (" --public" if public else "")
        raise KoaError(f"the run is complete in {out}, but not on the Hub: {error} Later: `{command}`.") from error
