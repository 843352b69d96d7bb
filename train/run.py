"""Train an Xception on KL-graded X-rays by a recipe.

    accelerate launch train/run.py --recipe paper --dataset data/knee-kl --output-dir runs/paper
    accelerate launch train/run.py --recipe paper --set stages.1.lr=3e-5 --set seed=1 ...
    accelerate launch train/run.py --recipe strong-polished --start-from runs/strong ...
    accelerate launch train/run.py --resume ...        # the same options again, after a kill or a SIGTERM
    accelerate launch train/run.py --dataset user/knee-kl --revision v1.0 --push-to-hub user/koa-xception ...
    accelerate launch --multi_gpu --num_processes 4 train/run.py ...               # four GPUs, the same losses
    accelerate launch --multi_gpu --num_processes 2 train/run.py --cpu ...         # two CPU processes

The output folder becomes a model folder (config.json, model.safetensors, README.md) with the run's record beside it:
recipe.yaml, run.json, metrics.jsonl, metrics.json, curves.png, confusion_matrix.png, tensorboard/.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from accelerate import skip_first_batches
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from koa_hf import Grader
from koa_hf.data.load import commit_of, dataset_fingerprint, load_dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.network import xception
from koa_hf.network.engine_names import PRECISIONS
from koa_hf.network.preprocess import Preprocessing
from koa_hf.progress import ProgressBar
from train.loop.batch_plan import BatchPlan
from train.loop.checkpoints import Checkpoints, RunState, StopRequest
from train.loop.device import make_accelerator
from train.loop.evaluation import evaluate_model, predict
from train.loop.history import SPLITS, History
from train.loop.knee_images import KneeImages, choose_split, evenly_spaced, fit_in_memory
from train.loop.optim import class_weights, make_criterion, make_optimizer, make_train_loss, make_weight_average
from train.loop.recipe import Recipe, available_recipes, load_recipe
from train.loop.run_folder import begin_run_folder, finish_run_folder, publish_run
from train.loop.settings import check_settings
from train.loop.starting_weights import StartModel, build_network
from train.loop.teacher import teacher_logits
from train.loop.trunk import TailInput, cuts_from
from train.loop.trunk_cache import TrunkCache


def train(plan: Recipe, args: argparse.Namespace) -> None:
    """The experiment, from data to model folder."""
    began, out = time.perf_counter(), Path(args.output_dir)
    accelerator = make_accelerator(args, plan.seed)
    check_settings(plan, args, accelerator)
    stop, state, history = StopRequest(accelerator), RunState(), History(out / "metrics.jsonl", plan, accelerator)
    checkpoints = Checkpoints(out, accelerator, state, history, args.resume)
    set_seed(plan.seed)

    # Data
    with accelerator.main_process_first():  # one downloads, the others find it in the cache
        data = load_dataset(args.dataset, revision=args.revision)
    splits = {name: evenly_spaced(choose_split(data, name, args.dataset), args.limit) for name in SPLITS}
    cached = not (args.no_cache or plan.varies)
    # In memory unless it is read once only, for the trunk cache, or by workers, which last for an epoch.
    keep = not (cached or args.workers) and fit_in_memory(splits.values(), plan.largest, accelerator.num_processes)
    images = {name: KneeImages(split, Preprocessing(plan.image_size), keep=keep) for name, split in splits.items()}
    fingerprints = {name: dataset_fingerprint(images[name].split) for name in SPLITS}

    # Model. Built after the seed is set, so that the seed decides the new head (and a random trunk).
    with accelerator.main_process_first():
        start = StartModel.load(args.start_from, accelerator.device) if args.start_from else None
        teachers = [StartModel.load(name, accelerator.device) for name in args.teacher]
        model = build_network(plan, args.pretrained_weights, start, images["train"], checkpoints.resuming)
    model.to(accelerator.device, memory_format=torch.channels_last)
    cache = TrunkCache(args.cache_dir or out / "trunk_cache", accelerator, stop=stop) if cached else None
    begin_run_folder(plan, args, accelerator, images, fingerprints, commit_of(data), start, teachers, cached)
    teacher = None
    if plan.distils:
        graders = [one.grader for one in teachers or [start]]
        teacher = teacher_logits(accelerator, graders, images["train"], args.eval_batch_size, checkpoints, stop)

    for stage in plan.stages[state.stage :]:
        checkpoints.begin_stage(model)
        xception.select_trainable(model, stage.train)

        # Frozen trunk in front of the cut: computed once, or for every batch; trained tail behind it.
        cut = xception.TRAINABLE_PARTS[stage.train].cut
        inputs, trunk = images, None
        if cache is not None and cut != "conv1":
            inputs = cache.open(model, images, fingerprints, cuts_from(plan, state.stage))[cut]
        elif cut != "conv1":
            trunk = xception.folded(model).to(memory_format=torch.channels_last)
        tail = xception.Tail(model, cut)

        batch_plan = BatchPlan(len(images["train"]), plan.batch_size, args.accumulate, plan.seed, accelerator)
        reading = {"num_workers": args.workers, "pin_memory": accelerator.device.type == "cuda"}
        train_loader = DataLoader(inputs["train"], batch_plan.micro_batch, shuffle=True, **reading)
        validation_loader = DataLoader(inputs["validation"], args.eval_batch_size, **reading)
        state.average = make_weight_average(tail, stage)
        optimizer, schedule = make_optimizer(tail, stage, batch_plan.updates)
        tail, optimizer, schedule, train_loader, validation_loader = accelerator.prepare(
            tail, optimizer, schedule, train_loader, validation_loader
        )
        criterion = make_criterion(stage)
        train_loss = make_train_loss(stage, criterion, teacher)
        weights = class_weights(stage, images["train"].split["label"][:]).to(accelerator.device)
        checkpoints.load(stage.name)  # if the run is resumed in this stage

        for epoch in range(state.epoch, stage.last_epoch):
            state.start_clock()
            epochs_before = len(history.rows)
            size = plan.size_in(stage, epoch)
            images["train"].resize_to(plan.loaded_size(stage, epoch), accelerator)
            images["validation"].resize_to(size, accelerator)
            tail_input = TailInput(accelerator, cut, trunk, plan.augmentation, size)
            xception.train_mode(tail, stage.batch_norm)
            train_loader.set_epoch(epochs_before)  # a new order each epoch, the same for every process and resume
            batches = skip_first_batches(train_loader, state.batch) if state.batch else train_loader
            bar = {"initial": state.batch, "disable": not accelerator.is_main_process}
            for batch in ProgressBar(batches, f"{stage.name} {epoch + 1}", len(train_loader), "batch", **bar):
                labels, real = batch["label"], batch_plan.real_rows(state.batch, len(batch["label"]))
                draws = batch_plan.seed_step(epochs_before, state.batch, len(labels))
                mixture = batch_plan.mixture(stage.mixup, draws, state.batch)
                with accelerator.accumulate(tail):
                    logits = tail(tail_input(batch, draws, mixture)).float()
                    loss = train_loss(logits, labels, batch["row"], mixture)
                    accelerator.backward(batch_plan.mean_over_update(loss * weights[labels] * real, state.batch))
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
                if state.average is not None and accelerator.sync_gradients:
                    state.average.update_parameters(tail)
                history.add_batch(loss, logits, labels, real)
                state.batch += 1
                if accelerator.sync_gradients and state.batch < len(train_loader):
                    checkpoints.save_if_due(args.checkpoint_every, stop)

            trained = state.seconds
            evaluated = (tail if state.average is None else state.average).eval()
            with accelerator.autocast():
                logits, labels = predict(accelerator, evaluated, validation_loader, tail_input, "validation")
            seconds = {"train": trained, "validation": state.seconds - trained}
            loss, lr = criterion(logits, labels), schedule.get_last_lr()[0]
            if history.end_epoch(stage, epoch, loss, logits, labels, lr, seconds):  # the best so far
                checkpoints.save_best(model)
            state.next_epoch()
            checkpoints.save()

        if state.average is not None:
            model.load_state_dict({**model.state_dict(), **state.average.module.state_dict()})
        state.next_stage()
        accelerator.free_memory()

    # Model folder, measured in float32 and without rules, as timm and transformers will grade with it
    xception.load_weights(model, checkpoints.best_weights)
    images["validation"].preprocessing = Preprocessing(plan.image_size)
    grader = Grader(model, images["validation"].preprocessing, device=accelerator.device)
    evaluation = evaluate_model(accelerator, grader, images["validation"], "validation", args.eval_batch_size)
    if cache is not None and not args.keep_cache:
        cache.remove()
    accelerator.end_training()  # from here on the processes can't wait for each other any more
    if accelerator.is_main_process:
        finish_run_folder(plan, args, model, history.rows, evaluation, commit_of(data), cache, began)
        checkpoints.remove()
        if args.push_to_hub:
            publish_run(out, args.push_to_hub, args.public)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", default="paper", help=f"name ({', '.join(available_recipes())}) or path of a YAML file"
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
                        help="override a key of the recipe, such as stages.1.lr=3e-5; may be repeated")  # fmt: skip
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--output-dir", required=True, help="new folder, which becomes the model folder")
    parser.add_argument("--pretrained-weights", default=os.environ.get("KOA_WEIGHTS") or None, metavar="PATH",
                        help="ImageNet weights as safetensors (default: $KOA_WEIGHTS, else downloaded)")  # fmt: skip
    parser.add_argument("--start-from", metavar="MODEL",
                        help="finished run to continue by a recipe with weights: model; folder or Hub id")  # fmt: skip
    parser.add_argument("--teacher", nargs="+", default=[], metavar="MODEL",
                        help="finished runs that distillation learns from (default: --start-from)")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in the output folder")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="default: auto, which takes bf16 where it is faster"
    )
    parser.add_argument("--cpu", action="store_true", help="train on the CPU even if there is a GPU")
    parser.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="N",
        help="gradient accumulation: micro-batches in a batch (default: %(default)s)",
    )
    parser.add_argument(
        "--eval-batch-size", type=int, default=64, metavar="N", help="images over all processes (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="data-loader processes (default: %(default)s)"
    )
    parser.add_argument(
        "--checkpoint-every",
        type=int,
        default=100,
        metavar="N",
        help="micro-batches between checkpoints, beside one after each epoch (default: %(default)s)",
    )
    parser.add_argument("--no-cache", action="store_true", help="compute the frozen trunk in every epoch")
    parser.add_argument("--cache-dir", help="folder of the trunk cache (default: in the output folder)")
    parser.add_argument("--keep-cache", action="store_true", help="keep the trunk cache for another run")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images a split, for a trial run")
    parser.add_argument("--push-to-hub", metavar="USER/NAME", help="publish the finished model folder on the Hub")
    parser.add_argument("--public", action="store_true", help="make the repository of --push-to-hub public")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    train(load_recipe(args.recipe, args.overrides), args)


if __name__ == "__main__":
    sys.exit(main())
