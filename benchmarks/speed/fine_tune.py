"""Full fine-tune: milliseconds per image of a training step, by image size and precision.

    python benchmarks/speed/fine_tune.py
    python benchmarks/speed/fine_tune.py --device cuda --sizes 299 --batches 64 128 256 --rounds 10 --compile

A step is forward, backward and optimiser. The baseline is float32 in torch's default memory layout; the ceiling is the
time of the same multiplications at the speed of this machine's own matrix product, measured in the same run. On a GPU
also measured: what the fused optimiser, cuDNN's search for the fastest convolution, the weight average and a CUDA graph
of the whole step each bring; with --compile, torch.compile. Further: shares of the step by torch operation, on CPUs the
gain of a second process (gradients by Accelerate), the expected efficiency of several GPUs, and augmentation. Writes
results/benchmarks/fine_tune.json, or fine_tune_cuda.json on a GPU, and a plot. For decoding, see
benchmarks/speed/reading.py.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from matplotlib.figure import Figure
from torch.autograd import DeviceType
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.profiler import ProfilerActivity, profile

from benchmarks.reporting import RESULTS, TEAL, print_table, save_figure, write_result
from benchmarks.speed.ceiling import limits, operations, peak
from benchmarks.speed.timing import median_seconds
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grades import NUM_GRADES
from koa_hf.network import xception
from koa_hf.network.precision import autocast, choose_precision
from koa_hf.progress import progress_bar
from train.loop.augment import Draws, augment, disturb, resized
from train.loop.device import keep_freed_memory
from train.loop.recipe import load_recipe

SIZES = (128, 160, 192, 224, 299)
OPERATIONS_SHOWN = 8
# Bytes per second and direction, from data sheets: NVLink of an H100 SXM, 16 lanes of PCI Express 4, 10 Gbit Ethernet.
LINKS = {"NVLink": 450e9, "PCIe 4 x16": 32e9, "10 Gbit/s Ethernet": 1.25e9}
SCALING = {"size": 128, "batch": 8}  # pixels; images per process
GOAL = {"images_a_second": 3000, "batch": 128, "size": 299}  # the goal for an H100


@dataclass(frozen=True)
class Variant:
    """A way to compute the training step."""

    precision: str
    layout: torch.memory_format = torch.channels_last
    fused: bool = True
    """AdamW in one kernel, as in train/loop/optim.py; otherwise parameter by parameter."""
    average: bool = False
    """With the moving average of the weights that the recipes' `ema` asks for."""
    search: bool = False
    """cuDNN times its convolutions and takes the fastest (torch.backends.cudnn.benchmark)."""
    graph: bool = False
    """The whole step replayed as one CUDA graph."""
    compiled: bool = False
    """Forward and backward by torch.compile."""


def variants(device: torch.device, compiled: bool) -> dict[str, Variant]:
    """The variants measured on a device: the baseline first, then that of train/run.py, then what differs from it."""
    fast = choose_precision("auto", device)
    as_trained, name = Variant(fast), f"{fast}, channels last"
    found = {"fp32, default layout": Variant("fp32", torch.contiguous_format, fused=False), name: as_trained}
    if fast != "fp32":
        found[f"{fast}, default layout"] = replace(as_trained, layout=torch.contiguous_format)
    if device.type == "cuda":
        found |= {
            f"{name}, AdamW not fused": replace(as_trained, fused=False),
            f"{name}, weight average": replace(as_trained, average=True),
            f"{name}, cuDNN search": replace(as_trained, search=True),
            f"{name}, CUDA graph": replace(as_trained, graph=True),
        }
    if compiled:
        found[f"{name}, compiled"] = replace(as_trained, compiled=True)
        if device.type == "cuda":
            found[f"{name}, compiled, CUDA graph"] = replace(as_trained, compiled=True, graph=True)
            found[f"{name}, compiled, CUDA graph, cuDNN search"] = replace(
                as_trained, compiled=True, graph=True, search=True
            )
    return found


def step_seconds(device: torch.device, size: int, batch: int, variant: Variant, rounds: int) -> float:
    """Median seconds of a training step, its images already on the device."""
    torch.backends.cudnn.benchmark = variant.search
    try:
        return median_seconds(a_step(device, size, batch, variant), device, rounds)
    finally:
        torch.backends.cudnn.benchmark = False


def a_step(device: torch.device, size: int, batch: int, variant: Variant) -> Callable[[], None]:
    """A training step on fixed random images, to be called repeatedly."""
    model = xception.build(pretrained=False).to(device, memory_format=variant.layout).train()
    average = None
    if variant.average:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=variant.fused, capturable=variant.graph)
    forward = torch.compile(model, dynamic=False) if variant.compiled else model
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=variant.layout)
    grades = torch.arange(batch, device=device) % NUM_GRADES

    def step() -> None:
        optimizer.zero_grad()
        with autocast(device, variant.precision):
            logits = forward(images)
        functional.cross_entropy(logits.float(), grades).backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(model)

    return captured(step) if variant.graph else step


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as one CUDA graph, after three steps in which libraries and torch.compile settle."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return lambda _kept=step: graph.replay()  # with the step, whose tensors the graph works on and doesn't keep


def where_time_goes(device: torch.device, size: int, batch: int, precision: str) -> dict:
    """Shares of a step's time by torch operation, largest first."""
    step = a_step(device, size, batch, Variant(precision))
    step()
    on_gpu = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=kinds, record_shapes=True) as profiled:
        step()
    taken = Counter()
    for row in profiled.key_averages(group_by_input_shape=True):
        if row.device_type == DeviceType.CPU:  # operations; those of a GPU's kernels are in their operations already
            depthwise = "conv" in row.key and any(len(shape) == 4 and shape[1] == 1 for shape in row.input_shapes)
            name = row.key.removeprefix("aten::") + (" depthwise" if depthwise else "")
            taken[name] += row.self_device_time_total if on_gpu else row.self_cpu_time_total
    whole = taken.total()
    return {
        "size": size,
        "batch": batch,
        "precision": precision,
        "share_by_operation": {name: round(time / whole, 3) for name, time in taken.most_common(OPERATIONS_SHOWN)},
    }


def augmenting(device: torch.device, size: int, batch: int, rounds: int) -> dict:
    """Milliseconds per image of the heaviest augmentation, that of `robust`: stored pixels to the network's input."""
    plan = load_recipe("robust")
    how, grey = plan.augmentation, torch.rand(batch, plan.stored_size, plan.stored_size, device=device)

    def change() -> None:
        draws = Draws(0, slice(0, batch), batch, device)
        augment(resized(disturb(grey, how, draws), size), how, draws)

    return {
        **{"size": size, "batch": batch, "recipe": plan.name},
        "milliseconds_an_image": round(median_seconds(change, device, rounds) / batch * 1000, 3),
    }


def one_of_several(rounds: int) -> None:
    """Body of each process that `processes` launches: prints the median seconds of a step."""
    keep_freed_memory()
    torch.set_num_threads(int(os.environ["THREADS"]))
    accelerator = Accelerator(cpu=True)
    model = xception.build(pretrained=False).to(memory_format=torch.channels_last).train()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True))
    images = torch.randn(SCALING["batch"], 3, SCALING["size"], SCALING["size"])
    images, grades = images.contiguous(memory_format=torch.channels_last), torch.arange(len(images)) % NUM_GRADES

    def step() -> None:
        optimizer.zero_grad()
        accelerator.backward(functional.cross_entropy(model(images), grades))
        optimizer.step()

    seconds = median_seconds(step, accelerator.device, rounds)
    accelerator.print(json.dumps({"processes": accelerator.num_processes, "seconds": seconds}))
    accelerator.end_training()


def processes(rounds: int) -> dict:
    """Images per second of one process on one core, two processes on one core each, and one process on two cores."""
    found = {}
    for name, count, threads in (
        ("one process, one core", 1, 1),
        ("two processes, a core each", 2, 1),
        ("one process, two cores", 1, 2),
    ):
        launched = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)),
                *(__file__, "--one-of-several", "--rounds", str(rounds)),
            ],
            env={**os.environ, "THREADS": str(threads), "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
        )
        if launched.returncode:
            raise KoaError(f"{name}: {launched.stderr.strip().splitlines()[-1]}")
        said = json.loads(launched.stdout.strip().splitlines()[-1])
        if said["processes"] != count:
            raise KoaError(f"{name}: {said['processes']} processes took part instead of {count}.")
        found[name] = count * SCALING["batch"] / said["seconds"]
    one, two, whole = found.values()
    return {
        "what": f"fp32, {SCALING['size']} px, {SCALING['batch']} images a process and step",
        "images_a_second": {name: round(value, 2) for name, value in found.items()},
        "efficiency_of_two_processes": round(two / (2 * one), 3),
        "efficiency_of_two_threads": round(whole / (2 * one), 3),
    }


def on_paper(steps: dict[str, float]) -> dict:
    """Estimated efficiency of N GPUs with ring all-reduce after each step, from a step's seconds.

    A ring all-reduce of G bytes over N GPUs sends 2 (N - 1) / N G bytes per GPU (Patarasuk and Yuan 2009,
    doi 10.1016/j.jpdc.2008.09.002). DDP overlaps this with the backward pass; here nothing overlaps, and links reach
    their nominal rates.
    """
    gradients = sum(p.numel() * p.element_size() for p in xception.build(pretrained=False).parameters())
    waits = {link: {n: 2 * (n - 1) / n * gradients / speed for n in (2, 4, 8)} for link, speed in LINKS.items()}
    return {
        "formula": "efficiency = step / (step + 2 (N - 1) / N * gradient bytes / bytes a second of the link)",
        "gradient_megabytes": round(gradients / 1e6, 1),
        "link_gigabytes_a_second": {name: speed / 1e9 for name, speed in LINKS.items()},
        "steps": [
            {
                "step": what,
                "milliseconds": round(step * 1000, 1),
                "efficiency_by_link_and_gpus": {
                    link: {n: round(step / (step + wait), 3) for n, wait in by_count.items()}
                    for link, by_count in waits.items()
                },
            }
            for what, step in steps.items()
        ],
    }


def plot(rows: list[dict], path: Path) -> None:
    """Milliseconds per image by size, in the first batch measured; of one size, images per second as bars."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes, sizes = figure.subplots(), {row["size"] for row in rows}
    if len(sizes) == 1:
        batch = max(row["batch"] for row in rows)
        shown = [row for row in rows if row["batch"] == batch]
        rates = [1000 / row["milliseconds_an_image"] for row in shown]
        bars = axes.barh([row["way"] for row in shown], rates, color=TEAL)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.set(xlabel=f"images per second, {sizes.pop()} px, batches of {batch}")
        return save_figure(figure, path)
    shown = [row for row in rows if row["batch"] == rows[0]["batch"]]
    for way in dict.fromkeys(row["way"] for row in shown):
        chosen = [row for row in shown if row["way"] == way]
        axes.plot([row["size"] for row in chosen], [row["milliseconds_an_image"] for row in chosen], "o-", label=way)
        if way == shown[-1]["way"]:
            axes.plot([row["size"] for row in chosen], [row["ceiling"] for row in chosen], "k--", label="ceiling")
    axes.set(xlabel="image size, px", ylabel="ms per image and step", ylim=(0, None))
    axes.legend()
    save_figure(figure, path)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="image sizes, pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[32], help="images per step")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    parser.add_argument("--one-of-several", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3, help="steps measured (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="default: results/benchmarks/fine_tune.json or fine_tune_cuda.json")
    args = parser.parse_args()
    name = "fine_tune.json" if args.device == "cpu" else f"fine_tune_{args.device}.json"
    args.output = args.output or RESULTS / "benchmarks" / name
    if args.one_of_several:
        return one_of_several(args.rounds)
    keep_freed_memory()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise KoaError("no GPU was found; give --device cpu.")
    device = torch.device(args.device)
    ways = variants(device, args.compile)
    _, trained, *_ = ways  # that of train/run.py
    peaks = {precision: peak(device, precision) for precision in {way.precision for way in ways.values()}}
    rows = []
    with progress_bar("measuring", len(args.sizes) * len(args.batches) * len(ways), show=True) as advance:
        for size in args.sizes:
            needed = operations(xception.build(pretrained=False), size, backward=True)
            for batch in args.batches:
                for way, variant in ways.items():
                    with contextlib.suppress(torch.OutOfMemoryError):  # leaves the row out
                        taken = step_seconds(device, size, batch, variant, args.rounds) / batch * 1000
                        ceiling = needed / peaks[variant.precision] * 1000
                        rows.append(
                            {
                                "way": way,
                                "size": size,
                                "batch": batch,
                                "milliseconds_an_image": round(taken, 3),
                                "ceiling": round(ceiling, 3),
                                "share_of_the_ceiling": round(ceiling / taken, 2),
                            }
                        )
                    advance()
    baseline = {
        (row["size"], row["batch"]): row["milliseconds_an_image"] for row in rows if row["way"] == next(iter(ways))
    }
    for row in rows:
        if beside := baseline.get((row["size"], row["batch"])):  # absent where the baseline ran out of memory
            row["times_the_baseline"] = round(beside / row["milliseconds_an_image"], 2)
    largest = max((row for row in rows if row["way"] == trained), key=lambda row: (row["size"], row["batch"]))
    step = largest["milliseconds_an_image"] * largest["batch"] / 1000
    result = {
        "what": "ms per image: forward, backward, AdamW step; images already on the device; medians",
        "rows": rows,
        **({"cpu_processes": processes(args.rounds)} if device.type == "cpu" else {}),
        "where_time_goes": where_time_goes(device, largest["size"], largest["batch"], ways[trained].precision),
        "augmenting": augmenting(device, largest["size"], largest["batch"], args.rounds),
        "gpus_on_paper": on_paper(
            {
                f"measured here: {largest['way']}, {largest['size']} px, {largest['batch']} images": step,
                f"the goal of an H100 at {GOAL['size']} px: {GOAL['images_a_second']} images a second, "
                f"{GOAL['batch']} images": GOAL["batch"] / GOAL["images_a_second"],
            }
        ),
        **limits(device, peaks),
        **({"device": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}),
    }
    write_result(args.output, result)
    plot(rows, args.output.with_suffix(".png"))
    print_table(result["what"], rows)


if __name__ == "__main__":
    sys.exit(main())
