"""Train an Xception on KL-graded X-rays by a recipe.

    accelerate launch train/run.py --recipe paper --dataset data/knee-kl --output-dir runs/paper
    accelerate launch --multi_gpu --num_processes 2 train/run.py --cpu --recipe paper ...       # two CPU processes
    accelerate launch --multi_gpu --num_processes 4 train/run.py --recipe paper --dataset user/knee-kl ...
    accelerate launch train/run.py --recipe paper --set stages.1.lr=3e-5 --set seed=1 ...
    accelerate launch train/run.py --resume ...        # the same options again, after a kill or a SIGTERM
    accelerate launch train/run.py --recipe strong-polished --start-from runs/strong ...
    accelerate launch train/run.py --dataset user/knee-kl --revision v1.0 --push-to-hub user/koa-xception ...

The output folder becomes a model folder (config.json, model.safetensors, README.md) with the run's record beside it:
recipe.yaml, run.json, metrics.jsonl, metrics.json, curves.png, confusion_matrix.png, tensorboard/.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches
from accelerate.utils import ProjectConfiguration, set_seed
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from koa_hf import Grader
from koa_hf.data.load import commit_of, dataset_fingerprint, load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import replacing, write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.metrics import HIGHER_IS_BETTER, grade_metrics
from koa_hf.hub import model_card, publish
from koa_hf.network import losses, model_folder, xception
from koa_hf.network.engine_names import PRECISIONS, from_accelerate
from koa_hf.network.model_folder import RECIPE_BEFORE_FILE
from koa_hf.network.preprocess import Preprocessing, normalise
from train.loop import plots, recipe, record
from train.loop.augment import augment
from train.loop.checkpoints import Checkpoints, Progress, StopRequest
from train.loop.device import keep_freed_memory, mixed_precision, share_cores
from train.loop.knee_images import KneeImages, choose_split, fit_in_memory
from train.loop.predict import predict
from train.loop.recipe import Recipe, Stage
from train.loop.trunk import channels_first
from train.loop.trunk_cache import TrunkCache
from train.validate import evaluate_model, write_evaluation

SPLITS = ("train", "validation")


def train(plan: Recipe, args: argparse.Namespace) -> None:
    """The experiment, from data to model folder."""
    began, out = time.perf_counter(), Path(args.output_dir)
    keep_freed_memory()
    accelerator = Accelerator(
        cpu=args.cpu,
        mixed_precision=mixed_precision(precision_wanted(args), args.cpu),
        gradient_accumulation_steps=args.accumulate,
        log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "tensorboard")),
        # A loader's batch is the global one and is shared out, so that the number of processes changes nothing.
        dataloader_config=DataLoaderConfiguration(
            split_batches=True,
            use_seedable_sampler=True,
            data_seed=plan.seed,
            non_blocking=torch.cuda.is_available(),
        ),
    )
    share_cores(accelerator)
    shares = accelerator.num_processes * args.accumulate
    if plan.batch_size % shares:
        raise KoaError(
            f"batch_size is {plan.batch_size}, which can't be shared out over {accelerator.num_processes} processes "
            f"times {args.accumulate} accumulated parts; choose a multiple of {shares}."
        )
    check_start(plan, args.start_from)
    check_output(out, plan, args.resume)
    if args.push_to_hub and accelerator.is_main_process:  # before the work, not after it
        publish.check_push(args.push_to_hub, public=args.public)
    accelerator.wait_for_everyone()
    stop, progress = StopRequest(), Progress()
    checkpoints = Checkpoints(out / "checkpoints", accelerator, progress)
    set_seed(plan.seed)

    # Data
    with accelerator.main_process_first():  # one downloads, the others find it in the cache
        data = load_dataset(args.dataset, revision=args.revision)
    preprocessing = Preprocessing(plan.image_size)
    rows = {split: limited(choose_split(data, split, args.dataset), args.limit) for split in SPLITS}
    cached = not (args.no_cache or plan.augmentation.active or plan.resizes)
    # What the cache holds is read once, and workers forget with every epoch what they have read.
    keep = not cached and not args.workers and fit_in_memory(rows.values(), plan.largest, accelerator.num_processes)
    images = {split: KneeImages(rows[split], preprocessing, keep=keep) for split in SPLITS}
    fingerprints = {split: dataset_fingerprint(images[split].split) for split in SPLITS}

    # Model. Built after the seed is set, so that it decides the new head (and a random trunk).
    checkpoint = checkpoints.latest() if args.resume else None
    needs_imagenet = plan.weights == "imagenet" and checkpoint is None
    with accelerator.main_process_first():
        model = xception.build(args.pretrained_weights, pretrained=needs_imagenet, drop_rate=plan.drop_rate)
        start = None
        if plan.weights == "model":
            found = model_folder.find_model(args.start_from)
            start = Grader.load(found, device=accelerator.device, plain=True, engine="torch")
            model.load_state_dict(start.model.state_dict())
    if plan.weights == "random" and checkpoint is None:
        some = torch.stack([images["train"][row]["pixels"] for row in range(min(64, len(images["train"])))])
        xception.estimate_batch_norm_statistics(model, normalise(some))
    model.to(accelerator.device, memory_format=torch.channels_last)

    cache = None
    if cached:
        cache_folder = Path(args.cache_dir) if args.cache_dir else out / "trunk_cache"
        cache = TrunkCache(cache_folder, accelerator, accelerator.mixed_precision, stop=stop)
    if accelerator.is_main_process:  # from here on the folder is this run's; bad input ended before
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "recipe.yaml", plan.to_yaml())
        if start:
            keep_recipe_before(found.folder, out)
    accelerator.init_trackers("tensorboard")
    sizes = {split: len(images[split]) for split in SPLITS}
    commit = commit_of(data)
    started_from = start and {"model": start.model_id, "revision": start.revision}
    record.write(out / "run.json", accelerator, dict(vars(args)), fingerprints, sizes, commit, started_from)
    accelerator.print(
        f"{plan.name}: {len(images['train'])} training and {len(images['validation'])} validation images, "
        f"{accelerator.num_processes} process(es) on {accelerator.device.type}, "
        f"precision {accelerator.mixed_precision}, trunk cache {'on' if cache else 'off'}"
    )

    taught = None
    if any(stage.distillation for stage in plan.stages):
        taught = teaching(
            accelerator, start, images["train"], args.eval_batch_size, out / "state" / "taught.safetensors", stop
        ).to(accelerator.device)

    if checkpoint is not None:
        progress.stage = checkpoints.stage_of(checkpoint)  # decides what to build before the rest can be loaded
    while progress.stage < len(plan.stages):
        stage = plan.stages[progress.stage]
        cut = xception.TRAINABLE_PARTS[stage.train].cut
        stage_start = out / "state" / f"stage-{progress.stage:02d}.safetensors"
        if checkpoint is not None:
            xception.load_weights(model, stage_start)
        elif accelerator.is_main_process:
            xception.save_weights(model, stage_start)
        xception.select_trainable(model, stage.train)

        # In front of the cut: computed once, or computed anew for every batch.
        inputs, trunk = images, None
        if cache is not None and cut != "conv1":
            inputs = cache.open(model, images, fingerprints, cuts_from(plan, progress.stage))[cut]
        elif cut != "conv1":
            trunk = xception.folded(model).to(memory_format=torch.channels_last)

        # Behind the cut: what Accelerate trains.
        tail = xception.Tail(model, cut)
        micro_batch = plan.batch_size // args.accumulate
        reading = {"num_workers": args.workers, "pin_memory": accelerator.device.type == "cuda"}
        loaders = {
            "train": DataLoader(inputs["train"], micro_batch, shuffle=True, **reading),
            "validation": DataLoader(inputs["validation"], args.eval_batch_size, **reading),
        }
        progress.average = averaged(tail, stage)
        optimizer, schedule = make_optimizer(tail, stage, math.ceil(len(images["train"]) / plan.batch_size))
        tail, optimizer, schedule, loaders["train"], loaders["validation"] = accelerator.prepare(
            tail, optimizer, schedule, loaders["train"], loaders["validation"]
        )
        criterion = make_criterion(stage)
        weights = class_weights(stage, images["train"].split["label"][:]).to(accelerator.device)
        if checkpoint is not None:
            accelerator.load_state(str(checkpoint))
            accelerator.print(f"resumed: stage {stage.name}, epoch {progress.epoch + 1}, batch {progress.batch}")
            checkpoint = None

        def input_of(batch: dict, generator: torch.Generator | None = None, trunk=trunk, cut=cut) -> torch.Tensor:
            """Batch -> activation at the cut; augmented where a generator is given and the recipe says so."""
            if "activation" in batch:
                return channels_first(batch["activation"])
            grey = batch["pixels"]
            if generator is not None and plan.augmentation.active:
                first = accelerator.process_index * len(grey)
                part, whole = slice(first, first + len(grey)), accelerator.num_processes * len(grey)
                grey = augment(grey.float() / 255, plan.augmentation, generator, part, whole)
            pixels = normalise(grey).contiguous(memory_format=torch.channels_last)
            if trunk is None:
                return pixels
            with torch.no_grad(), accelerator.autocast():
                return xception.run_steps(trunk, pixels, "conv1", cut)

        while progress.epoch < stage.epochs:
            epoch_began, past_epochs = time.perf_counter(), len(progress.history)
            for part in images.values():
                part.preprocessing = Preprocessing(plan.size_in(stage, progress.epoch))
            xception.train_mode(tail, stage.batch_norm)
            loaders["train"].set_epoch(past_epochs)  # a new order each epoch, the same for every process and resume
            batches = skip_first_batches(loaders["train"], progress.batch) if progress.batch else loaders["train"]
            bar = tqdm(
                total=len(loaders["train"]),
                initial=progress.batch,
                desc=f"{stage.name} {progress.epoch + 1}/{stage.epochs}",
                unit="batch",
                mininterval=0.5 if sys.stderr.isatty() else 30,
                disable=not accelerator.is_main_process,
                leave=False,
            )
            for batch in batches:
                # How many of the global batch are images, and which of this process' rows: the last batch is shorter,
                # and Accelerate fills it up with repeated images where several processes share it.
                in_batch = min(micro_batch, len(images["train"]) - progress.batch * micro_batch)
                update = progress.batch // args.accumulate
                in_update = min(plan.batch_size, len(images["train"]) - update * plan.batch_size)
                first_row = accelerator.process_index * len(batch["label"])
                real = first_row + torch.arange(len(batch["label"]), device=accelerator.device) < in_batch
                with accelerator.accumulate(tail):
                    # Randomness by step, not by history: a resumed run, whose loaders draw anew, must not notice.
                    step_seed = (plan.seed * 10_000 + past_epochs) * 1_000_000 + progress.batch
                    torch.manual_seed(step_seed * 1_000 + accelerator.process_index)  # dropout
                    augmentation = torch.Generator().manual_seed(step_seed)
                    logits = tail(input_of(batch, augmentation)).float()
                    loss = criterion(logits, batch["label"])
                    if stage.distillation:
                        distilled = losses.distillation(logits, taught[batch["row"]])
                        loss = torch.lerp(loss, distilled, stage.distillation)
                    weighted = loss * weights[batch["label"]] * real
                    # The mean over the images of one update. `backward` divides by the accumulated parts and DDP by
                    # the processes; both are undone here.
                    accelerator.backward(weighted.sum() / in_update * shares)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
                if progress.average is not None and accelerator.sync_gradients:
                    progress.average.update_parameters(tail)
                # Labels are copied: a worker's lie in memory that it shares. All stays on the device until the epoch
                # ends: a GPU would have to be waited for.
                label = batch["label"].clone()
                seen = {"loss": loss.detach(), "logits": logits.detach(), "label": label, "real": real}
                progress.seen.append(accelerator.gather(seen))
                progress.batch += 1
                bar.update()
                if accelerator.sync_gradients and progress.batch < len(loaders["train"]):
                    interrupted = asked_to_end(accelerator, stop)
                    if interrupted or progress.batch % args.checkpoint_every == 0:
                        progress.seconds += time.perf_counter() - epoch_began
                        epoch_began = time.perf_counter()
                        checkpoints.save()
                    if interrupted:
                        accelerator.print(f"stopped on request; continue with --resume (checkpoint in {out})")
                        raise SystemExit(143)
            bar.close()

            trained = time.perf_counter()
            judged = (tail if progress.average is None else progress.average).eval()
            with accelerator.autocast():
                logits, labels = predict(accelerator, judged, loaders["validation"], input_of, "validation")
            seconds = {
                "train": round(progress.seconds + trained - epoch_began, 2),
                "validation": round(time.perf_counter() - trained, 2),
            }
            row = {
                "stage": stage.name,
                "epoch": progress.epoch + 1,
                "train": epoch_figures(progress.seen),
                "validation": figures_of(criterion(logits, labels), logits, labels),
                "lr": schedule.get_last_lr()[0],
                "seconds": seconds,
            }
            progress.history.append(row)
            accelerator.print(one_line(row))
            accelerator.log(
                {f"{split}/{name}": row[split][name] for split in SPLITS for name in ("loss", *HIGHER_IS_BETTER)},
                step=len(progress.history),
            )
            at_full_size = plan.size_in(stage, progress.epoch) == plan.image_size
            if at_full_size and is_better(plan, row, progress.best):
                progress.best = row["validation"].get(plan.best_metric)
                if accelerator.is_main_process:
                    instead = None if progress.average is None else progress.average.module.state_dict()
                    xception.save_weights(model, out / "state" / "best.safetensors", instead)
            if accelerator.is_main_process:
                write_text(out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in progress.history))
            progress.next_epoch()
            checkpoints.save()
        if progress.average is not None:
            model.load_state_dict({**model.state_dict(), **progress.average.module.state_dict()})
        progress.next_stage()
        accelerator.free_memory()

    # The model folder
    xception.load_weights(model, out / "state" / "best.safetensors")
    images["validation"].preprocessing = Preprocessing(plan.image_size)
    if accelerator.is_main_process:
        xception.save_model(model, out, plan.image_size, plan.note)
        plots.curves(progress.history, out / "curves.png")
    accelerator.wait_for_everyone()
    # In float32 and by no rules, as timm and transformers will grade with it.
    grader = Grader(model, Preprocessing(plan.image_size), device=accelerator.device)
    evaluation = evaluate_model(accelerator, grader, images["validation"], "validation", args.eval_batch_size)
    if cache is not None and not args.keep_cache:
        cache.remove()
    accelerator.end_training()  # from here on the processes can't wait for each other any more
    if accelerator.is_main_process:
        write_evaluation(evaluation, out, plan.name, args.dataset, dataset_commit=commit)
        seconds = {
            "trunk_cache": round(cache.seconds, 1) if cache else None,
            "epochs": round(sum(sum(row["seconds"].values()) for row in progress.history), 1),
            "this_process": round(time.perf_counter() - began, 1),
            "this_process_of_processors": round(time.process_time(), 1),  # of all cores, and not while it is stopped
        }
        record.finish(out / "run.json", seconds)
        model_card.write(out)
        for working in ("checkpoints", "state"):
            shutil.rmtree(out / working)
        accelerator.print(f"done in {seconds['this_process'] / 60:.1f} minutes: {out} is the model folder")
        if args.push_to_hub:
            push(out, args.push_to_hub, args.public)


def push(out: Path, repo_id: str, public: bool) -> None:
    """Publish the model folder. The run is complete by now, and stays so when this fails."""
    try:
        print(publish.push_model(out, repo_id, public=public).url)
    except KoaError as error:
        command = f"koa push model {out} {repo_id}" + (" --public" if public else "")
        raise KoaError(f"the run is complete in {out}, but not on the Hub: {error} Later: `{command}`.") from error


def keep_recipe_before(start: Path, out: Path) -> None:
    """Beside the run's own recipe that of the run which it continues, where that one's folder holds it."""
    before = start / "recipe.yaml"
    if before.is_file():
        write_text(out / RECIPE_BEFORE_FILE, before.read_text())


def check_start(plan: Recipe, start_from: str | None) -> None:
    """A recipe whose weights are a model's needs to be told which; no other has a use for it."""
    if plan.weights == "model" and not start_from:
        raise KoaError(
            f"the recipe {plan.name} continues from a finished run; name its folder or Hub id: --start-from."
        )
    if plan.weights != "model" and start_from:
        raise KoaError(
            f"the recipe {plan.name} starts from {plan.weights} weights, so --start-from has no use; leave it out, "
            "or add --set weights=model."
        )


def teaching(
    accelerator: Accelerator, teacher: Grader, images: KneeImages, batch_size: int, kept: Path, stop: StopRequest
) -> torch.Tensor:
    """What the starting model makes of each training image: logits float32 (images, 5), averaged with the mirror's.

    Computed once a run, at the model's own image size and without augmentation, and read from `kept` where a run is
    resumed.
    """
    if kept.exists():
        return load_file(kept)["logits"]
    loader = DataLoader(KneeImages(images.split, teacher.preprocessing), batch_size)
    network = xception.folded(teacher.model).to(memory_format=torch.channels_last)

    def averaged_logits(pixels: torch.Tensor) -> torch.Tensor:
        if stop():
            raise SystemExit(143)  # nothing is lost but this: --resume begins here again
        with accelerator.autocast():
            return (network(pixels).float() + network(pixels.flip(-1)).float()) / 2

    def input_of(batch: dict) -> torch.Tensor:
        return normalise(batch["pixels"]).contiguous(memory_format=torch.channels_last)

    logits, _ = predict(
        accelerator, averaged_logits, accelerator.prepare(loader), input_of, "what the start makes of it"
    )
    accelerator.free_memory(loader)
    if accelerator.is_main_process:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as partial:
            save_file({"logits": logits.contiguous()}, partial)
    accelerator.wait_for_everyone()
    return logits


def asked_to_end(accelerator: Accelerator, stop: StopRequest) -> bool:
    """Whether any process was; one alone needn't wait for its GPU to find out."""
    if accelerator.num_processes == 1:
        return stop()
    if stop():
        accelerator.set_trigger()
    return accelerator.check_trigger()


def precision_wanted(args: argparse.Namespace) -> str:
    """`--precision`; a resumed run keeps the one that it began with, on whatever machine, unless told otherwise."""
    earlier = Path(args.output_dir) / "run.json"
    if not (args.resume and args.precision == "auto" and earlier.exists()):
        return args.precision
    return from_accelerate(json.loads(earlier.read_text())["machine"]["precision"])


def check_output(out: Path, plan: Recipe, resume: bool) -> None:
    """A new run needs an empty folder; a resumed one the recipe that it began with."""
    recipe_file = out / "recipe.yaml"
    if resume and not recipe_file.exists():
        raise KoaError(f"{out} holds no run to resume; leave out --resume to begin one.")
    if resume and record.is_finished(out / "run.json"):
        raise KoaError(f"the run in {out} is finished; there is nothing to resume.")
    if resume and recipe_file.read_text() != plan.to_yaml():
        raise KoaError(f"the recipe differs from {recipe_file}; resume with the options that the run began with.")
    if not resume and out.exists() and any(out.iterdir()):
        raise KoaError(f"{out} is not empty; continue its run with --resume, or choose another --output-dir.")


def limited(split, limit: int | None):
    """The whole split, or evenly spaced images of it for a trial run."""
    if limit is None or limit >= len(split):
        return split
    return split.select([i * len(split) // limit for i in range(limit)])


def cuts_from(plan: Recipe, index: int) -> list[str]:
    """Cuts of this stage and of later ones whose trunk no stage in between changes: one pass serves them all."""
    cuts, depth = [], len(xception.STEPS)
    for stage in plan.stages[index:]:
        cut = xception.TRAINABLE_PARTS[stage.train].cut
        if (cuts and xception.STEPS.index(cut) > depth) or cut == "conv1":
            break
        depth = min(depth, xception.STEPS.index(cut))
        cuts.append(cut)
    return sorted(set(cuts), key=cuts.index)


def make_optimizer(tail: nn.Module, stage: Stage, steps_an_epoch: int):
    """The stage's optimiser over what it trains, the head first, and its schedule, stepped once an update."""
    by_depth: dict[int, list[nn.Parameter]] = {}
    for name, parameter in tail.named_parameters():
        if parameter.requires_grad:
            by_depth.setdefault(xception.depth_from_head(name), []).append(parameter)
    parameters = [
        {"params": group, "lr": stage.lr * (stage.layer_lr_decay**depth if depth else stage.head_lr_factor)}
        for depth, group in sorted(by_depth.items())
    ]
    if stage.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, stage.lr, momentum=0.9, weight_decay=stage.weight_decay, nesterov=True)
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[stage.optimizer]
        optimizer = kind(parameters, stage.lr, weight_decay=stage.weight_decay, fused=True)
    steps = stage.epochs * steps_an_epoch
    warmup = max(1, round(stage.warmup * steps))

    def factor(step: int) -> float:
        if step < warmup and stage.warmup:
            return (step + 1) / warmup
        if stage.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))
        return 1.0

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def averaged(tail: nn.Module, stage: Stage) -> AveragedModel | None:
    """An exponential moving average of the stage's weights and running statistics, where the recipe asks for one."""
    if not stage.ema:
        return None
    return AveragedModel(tail, multi_avg_fn=get_ema_multi_avg_fn(stage.ema), use_buffers=True)


def class_weights(stage: Stage, labels: list[int]) -> torch.Tensor:
    """A factor on the training loss for each grade, float32 (5,); balanced ones have mean 1 over the images."""
    counts = torch.bincount(torch.tensor(labels), minlength=NUM_GRADES).float()
    if stage.class_weights == "none":
        return torch.ones(NUM_GRADES)
    return torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts.clamp(min=1)), 0.0)


def make_criterion(stage: Stage):
    """(logits, grades) -> one loss an image."""
    if stage.loss == "soft_ordinal":
        return lambda logits, labels: losses.soft_ordinal(logits, labels, stage.ordinal_width)
    if stage.loss == "focal":
        return lambda logits, labels: losses.focal(logits, labels, stage.focal_alpha, stage.focal_gamma)
    return lambda logits, labels: losses.cross_entropy(logits, labels, stage.label_smoothing)


def figures_of(loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> dict:
    return {"loss": float(loss.mean()), **grade_metrics(logits.softmax(1).numpy(), labels.numpy())}


def epoch_figures(seen: list[dict[str, torch.Tensor]]) -> dict:
    """Figures over an epoch's training batches, as the network was when it saw each (as Keras prints them)."""
    whole = {name: torch.cat([batch[name].cpu() for batch in seen]) for name in seen[0]}
    real = whole["real"]  # without the rows that only fill up a last batch
    return figures_of(whole["loss"][real], whole["logits"][real], whole["label"][real])


def is_better(plan: Recipe, row: dict, best: float | None) -> bool:
    if plan.best_metric == "last" or best is None:
        return True
    value = row["validation"][plan.best_metric]
    if value is None:
        return False
    return value > best if HIGHER_IS_BETTER.get(plan.best_metric, False) else value < best


def one_line(row: dict) -> str:
    """An epoch for the terminal: the paper's columns first, then the ordinal ones."""
    train_figures, validation = row["train"], row["validation"]
    paper = " ".join(
        f"{name} {train_figures[key]:.4f}"
        for name, key in (
            ("loss", "loss"),
            ("acc", "accuracy"),
            ("prec", "keras_precision"),
            ("rec", "keras_recall"),
            ("auc", "keras_auc"),
        )
    )
    kappa = validation["quadratic_weighted_kappa"]
    return (
        f"{row['stage']} {row['epoch']}: {paper} | val loss {validation['loss']:.4f} acc {validation['accuracy']:.4f} "
        f"qwk {float('nan') if kappa is None else kappa:.4f} mae {validation['mean_absolute_error']:.4f} "
        f"bal {validation['balanced_accuracy']:.4f} | {sum(row['seconds'].values()):.0f} s"
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", default="paper", help=f"name ({', '.join(recipe.available())}) or path of a YAML file"
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
                        help="change a key of the recipe, such as stages.1.lr=3e-5; may be repeated")  # fmt: skip
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="of the data set on the Hub: a branch, tag or commit")
    parser.add_argument("--output-dir", required=True, help="becomes the model folder")
    parser.add_argument("--pretrained-weights", default=os.environ.get("KOA_WEIGHTS") or None, metavar="PATH",
                        help="ImageNet weights as safetensors (default: $KOA_WEIGHTS, else downloaded)")  # fmt: skip
    parser.add_argument("--start-from", metavar="MODEL",
                        help="a finished run, folder or Hub id, that recipes with weights: model continue")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on from the output folder's last checkpoint")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: bf16 where it is the faster")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU even where there is a GPU")
    parser.add_argument("--accumulate", type=int, default=1, metavar="N", help="parts that one batch is computed in")
    parser.add_argument("--eval-batch-size", type=int, default=64, metavar="N", help="images over all processes")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode images ahead")
    parser.add_argument("--checkpoint-every", type=int, default=100, metavar="N", help="batches; and after each epoch")
    parser.add_argument("--no-cache", action="store_true", help="run the frozen trunk anew in every epoch")
    parser.add_argument("--cache-dir", help="where the trunk cache lies (default: in the output folder)")
    parser.add_argument("--keep-cache", action="store_true", help="leave the trunk cache for another run")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images a split, for a trial run")
    parser.add_argument("--push-to-hub", metavar="USER/NAME", help="publish the model folder there at the end")
    parser.add_argument("--public", action="store_true", help="let everybody see what --push-to-hub publishes")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    train(recipe.load(args.recipe, args.overrides), args)


if __name__ == "__main__":
    sys.exit(main())
