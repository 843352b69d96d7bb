"""Gain of the trunk cache: the paper's recipe in four variants, side by side.

    python benchmarks/speed/cached_trunk.py --dataset data/knee-kl --pretrained-weights xception.safetensors

plain: a straightforward Accelerate loop; every epoch runs the whole network, in torch's default memory layout. plain,
channels last: the same in the faster layout. uncached: `train/run.py --no-cache`, with the batch normalisations of the
frozen trunk folded. cached: `train/run.py`.

Each variant runs real steps (read, forward, backward, Adam) on the same two batches in the same precision, in a process
of its own; the variants alternate. Figures for the whole release are medians times the number of images. The ceiling is
the time of the same operations at the speed of this machine's matrix product. Writes
results/benchmarks/trunk_cache.json and a plot.
"""

import argparse
import copy
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from accelerate import Accelerator
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.reporting import RESULTS, print_table, save_figure, write_result
from benchmarks.speed.ceiling import limits, operations_of, peak
from koa_hf.data.load import dataset_fingerprint, load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.network import xception
from koa_hf.network.engine_names import PRECISIONS, for_accelerate
from koa_hf.network.precision import choose_precision
from koa_hf.network.preprocess import Preprocessing, normalise
from koa_hf.progress import progress_bar
from train.loop import recipe, trunk
from train.loop.device import keep_freed_memory, share_cores
from train.loop.knee_images import KneeImages, evenly_spaced
from train.loop.optim import make_criterion, make_optimizer
from train.loop.recipe import load_recipe
from train.loop.trunk_cache import TrunkCache

TRAIN, VALIDATION = 5778, 826  # images of the release
VARIANTS = ("plain", "plain, channels last", "uncached", "cached")
STAGES = ("stage 1", "stage 2")
STEPS = 2  # per part and round; the first one alone would mostly measure cold caches


class Variant:
    """One variant of the recipe's training loop, in a process of its own."""

    def __init__(self, name: str, precision: str, args: argparse.Namespace):
        if name in ("uncached", "cached"):
            keep_freed_memory()
        self.name, self.batch, self.count = name, args.batch, args.batch * STEPS
        self.accelerator = Accelerator(cpu=True, mixed_precision=for_accelerate(precision))
        share_cores(self.accelerator)
        self.plan = load_recipe("paper")
        split = evenly_spaced(load_dataset(args.dataset)["train"], self.count)
        self.images = KneeImages(split, Preprocessing(self.plan.image_size))
        torch.manual_seed(0)
        model = xception.build(args.pretrained_weights)
        if name != "plain":
            model.to(memory_format=torch.channels_last)
        self.caches = tempfile.TemporaryDirectory()
        self.parts: dict[str, Callable[[], float]] = {}
        if name == "cached":
            trunk.WORTH_CONVERTING = 0  # as for the whole release
            self.model, self.filled = copy.deepcopy(model), 0
            self.parts["trunk once"] = self.fill
            self.fill()
        for label, stage in zip(STAGES, self.plan.stages, strict=True):
            self.add_stage(label, stage, copy.deepcopy(model))

    def add_stage(self, label: str, stage: recipe.Stage, model: nn.Module) -> None:
        """Add a stage's training step and validation step."""
        xception.select_trainable(model, stage.train)
        cut = xception.TRAINABLE_PARTS[stage.train].cut
        trained = model if self.name.startswith("plain") else xception.Tail(model, cut)
        front = xception.folded(model).to(memory_format=torch.channels_last) if self.name == "uncached" else None
        data = self.activations[cut]["train"] if self.name == "cached" else self.images
        loader = DataLoader(data, self.batch)
        optimizer, schedule = make_optimizer(trained, stage, updates_an_epoch=TRAIN // self.plan.batch_size)
        trained, optimizer, loader = self.accelerator.prepare(trained, optimizer, loader)
        criterion, layout = make_criterion(stage), torch.channels_last
        if self.name == "plain":
            layout = torch.contiguous_format

        def input_of(batch: dict) -> torch.Tensor:
            if "activation" in batch:
                return trunk.channels_first(batch["activation"])
            pixels = normalise(batch["pixels"]).contiguous(memory_format=layout)
            if front is None:
                return pixels
            with torch.no_grad(), self.accelerator.autocast():
                return xception.run_steps(front, pixels, "conv1", cut)

        def step() -> float:
            xception.train_mode(trained, stage.batch_norm)
            for batch in loader:
                loss = criterion(trained(input_of(batch)).float(), batch["label"]).mean()
                self.accelerator.backward(loss)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            return loss.item()

        @torch.no_grad()
        def validate() -> float:
            trained.eval()
            for batch in loader:
                loss = criterion(trained(input_of(batch)).float(), batch["label"]).mean()
            return loss.item()

        self.parts[label] = step
        self.parts[f"{label}, validation"] = validate

    def fill(self) -> float:
        """Compute the cache anew."""
        self.filled += 1
        cache = TrunkCache(Path(self.caches.name, str(self.filled)), self.accelerator)
        cuts = [xception.TRAINABLE_PARTS[stage.train].cut for stage in self.plan.stages]
        fingerprints = {"train": dataset_fingerprint(self.images.split)}
        self.activations = cache.open(self.model, {"train": self.images}, fingerprints, cuts)
        self.fill_seconds = cache.seconds  # without the conversion, needed only once per run
        return 0.0

    def round(self) -> dict[str, tuple[float, float]]:
        """Part -> milliseconds per image, and the loss."""
        found = {}
        for part, work in self.parts.items():
            began = time.perf_counter()
            loss = work()
            seconds = self.fill_seconds if work == self.fill else time.perf_counter() - began
            found[part] = (seconds / self.count * 1000, loss)
        return found


def start(*args) -> None:
    global variant
    variant = Variant(*args)


def one_round() -> dict[str, tuple[float, float]]:
    return variant.round()


def needed_operations(size: int) -> dict[str, dict[str, int]]:
    """Variant -> part -> floating-point operations per image; neither folding nor the layout changes them."""
    model = xception.build(pretrained=False).to("meta")
    plan, images = load_recipe("paper"), torch.zeros(2, 3, size, size, device="meta")
    found = {name: {} for name in VARIANTS}

    def forward(first: str, activation: torch.Tensor) -> torch.Tensor:
        return xception.Tail(model, first)(activation)

    def counted(work: Callable[[], object], train: bool = False) -> int:
        with torch.set_grad_enabled(train):
            return operations_of(lambda: work().sum().backward() if train else work()) // len(images)

    for label, stage in zip(STAGES, plan.stages, strict=True):
        xception.select_trainable(model, stage.train)
        xception.train_mode(model, stage.batch_norm)
        cut = xception.TRAINABLE_PARTS[stage.train].cut
        with torch.no_grad():
            at_cut = xception.run_steps(model, images, "conv1", cut)
        whole = {
            True: counted(lambda: forward("conv1", images), True),
            False: counted(lambda: forward("conv1", images)),
        }
        tail = {train: counted(lambda cut=cut, at_cut=at_cut: forward(cut, at_cut), train) for train in (True, False)}
        for name in VARIANTS:
            step, validation = (tail if name == "cached" else whole)[True], (tail if name == "cached" else whole)[False]
            found[name] |= {label: step, f"{label}, validation": validation}
    found["cached"]["trunk once"] = counted(lambda: xception.run_steps(model, images, "conv1", "fc"))
    return found


def minutes(milliseconds: dict[str, float], plan: recipe.Recipe) -> dict[str, float]:
    """Minutes of the recipe over the whole release, by part."""
    found = {"trunk once": milliseconds.get("trunk once", 0.0) * (TRAIN + VALIDATION)}
    for label, stage in zip(STAGES, plan.stages, strict=True):
        epoch = milliseconds[label] * TRAIN + milliseconds[f"{label}, validation"] * VALIDATION
        found[label] = epoch * stage.epochs
    found = {part: value / 60_000 for part, value in found.items()}
    return {**found, "whole recipe": sum(found.values())}


def plot(by_variant: dict[str, dict], path: Path) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    names = list(by_variant)[::-1]
    left = [0.0] * len(names)
    for part in ("trunk once", *STAGES):
        widths = [by_variant[name]["minutes"][part] for name in names]
        axes.barh(names, widths, left=left, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for i, name in enumerate(names):
        ceiling = by_variant[name]["minutes_at_the_ceiling"]
        axes.plot([ceiling, ceiling], [i - 0.4, i + 0.4], "k--", label="ceiling" if i == 0 else None)
        axes.text(left[i], i, f" {left[i]:.0f} min", va="center")
    axes.set(xlabel="minutes for 13 epochs over the release", xlim=(0, 1.12 * max(left)))
    axes.legend(loc="lower right")
    save_figure(figure, path)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="the built release")
    parser.add_argument("--pretrained-weights", default=os.environ.get("KOA_WEIGHTS"), help="default: $KOA_WEIGHTS")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of all variants")
    parser.add_argument("--batch", type=int, default=32, help="images per step (default: the recipe's, %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one untimed (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "benchmarks" / "trunk_cache.json")
    args = parser.parse_args()
    if not args.pretrained_weights:
        raise KoaError(
            "name the ImageNet weights with --pretrained-weights PATH or the environment variable KOA_WEIGHTS."
        )
    precision, plan = choose_precision(args.precision, "cpu"), load_recipe("paper")
    peaks = [peak(torch.device("cpu"), precision)]
    context = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(1, context, start, (name, precision, args)) for name in VARIANTS}
    rounds = {name: [] for name in VARIANTS}
    with progress_bar("measuring", (args.rounds + 1) * len(VARIANTS), show=True) as advance:
        for _ in range(args.rounds + 1):
            for name, pool in pools.items():
                rounds[name].append(pool.submit(one_round).result())
                advance()
            peaks.append(peak(torch.device("cpu"), precision))
    for pool in pools.values():
        pool.shutdown()

    needed, by_variant = needed_operations(plan.image_size), {}
    for name in VARIANTS:
        measured = {part: statistics.median(one[part][0] for one in rounds[name][1:]) for part in rounds[name][0]}
        ceilings = {part: needed[name][part] / max(peaks) * 1000 for part in measured}
        whole, at_ceiling = minutes(measured, plan), minutes(ceilings, plan)["whole recipe"]
        by_variant[name] = {
            "milliseconds_an_image": {part: round(value, 2) for part, value in measured.items()},
            "ceiling_milliseconds_an_image": {part: round(value, 2) for part, value in ceilings.items()},
            "share_of_the_ceiling": {part: round(ceilings[part] / measured[part], 2) for part in measured},
            "minutes": {part: round(value, 2) for part, value in whole.items()},
            "minutes_at_the_ceiling": round(at_ceiling, 2),
        }
    for name in VARIANTS:
        whole = {other: by_variant[other]["minutes"]["whole recipe"] for other in (name, "plain")}
        by_variant[name]["times_the_plain_loop"] = round(whole["plain"] / whole[name], 2)
    result = {
        "what": f"the paper recipe over the whole release ({TRAIN} + {VALIDATION} images, {len(plan.stages)} stages), "
        f"from the medians of {args.rounds} rounds of {STEPS} steps of {args.batch} images",
        "ways": by_variant,
        "largest_loss_difference_from_the_plain_loop": {
            name: max(
                abs(ours[part][1] - plain[part][1])
                for ours, plain in zip(rounds[name], rounds["plain"], strict=True)
                for part in plain
            )
            for name in VARIANTS[1:]
        },
        "precision": precision,
        **limits(torch.device("cpu"), {precision: max(peaks)}),
    }
    write_result(args.output, result)
    plot(by_variant, args.output.with_suffix(".png"))
    print_table(
        result["what"],
        [
            {"variant": name}
            | {f"{part}, min": round(value, 1) for part, value in row["minutes"].items()}
            | {"its ceiling, min": round(row["minutes_at_the_ceiling"], 1)}
            | {"times the plain loop": row["times_the_plain_loop"]}
            for name, row in by_variant.items()
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
