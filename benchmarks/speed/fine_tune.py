"""The full fine-tune: milliseconds an image, forward, backward and optimiser step, by image size and precision.

    python benchmarks/speed/fine_tune.py
    python benchmarks/speed/fine_tune.py --device cuda --sizes 224 299 384 --batches 32 64 128 256 --compile

The ceiling is what the same multiplications take in this machine's own matrix product, measured in the same run; the
baseline is the plain loop: float32, and memory laid out as torch does by default. Beside that: where the time goes,
what a second process brings on this machine's CPU (real processes, gradients averaged by Accelerate), what several GPUs
would bring on paper, and what augmenting takes (how fast the images are read: benchmarks/speed/reading.py). Writes
results/benchmarks/fine_tune.json, or of a GPU fine_tune_cuda.json, and a plot of it.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from matplotlib.figure import Figure
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from benchmarks.recording import record, show
from benchmarks.speed.ceiling import limits, operations, peak, seconds_of
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import replacing
from koa_hf.grades import NUM_GRADES
from koa_hf.network import xception
from koa_hf.network.precision import autocast, choose_precision
from koa_hf.progress import progress_bar
from train.loop import recipe
from train.loop.augment import augment
from train.loop.device import keep_freed_memory

ROOT = Path(__file__).resolve().parents[2]

SIZES = (128, 160, 192, 224, 299)
OPERATIONS_SHOWN = 6
# Bytes a second that one GPU sends while it receives as many, from the makers' data sheets: NVLink of an H100 SXM, 16
# lanes of PCI Express 4, 10-gigabit Ethernet.
LINKS = {"NVLink": 450e9, "PCIe 4 x16": 32e9, "10 Gbit/s Ethernet": 1.25e9}
SCALING = {"size": 128, "batch": 8}  # pixels, and images a process
GOAL = {"images_a_second": 3000, "batch": 128, "size": 299}  # of an H100: what is aimed at, not what was measured


def step_seconds(
    device: torch.device, size: int, batch: int, precision: str, plain: bool, compiled: bool, rounds: int
) -> float:
    """Median seconds of one training step on images that are on the device already."""
    return seconds_of(a_step(device, size, batch, precision, plain, compiled), device, rounds)


def a_step(
    device: torch.device, size: int, batch: int, precision: str, plain: bool = False, compiled: bool = False
) -> Callable[[], None]:
    """One training step on the same random images, over and over."""
    layout = torch.contiguous_format if plain else torch.channels_last
    model = xception.build(pretrained=False).to(device, memory_format=layout).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=not plain)
    forward = torch.compile(model) if compiled else model
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=layout)
    grades = torch.arange(batch, device=device) % NUM_GRADES

    def step() -> None:
        optimizer.zero_grad()
        with autocast(device, precision):
            logits = forward(images)
        functional.cross_entropy(logits.float(), grades).backward()
        optimizer.step()

    return step


def where_time_goes(device: torch.device, size: int, batch: int, precision: str) -> dict:
    """Shares of one step's time by the operation of torch that took it, the largest first."""
    step = a_step(device, size, batch, precision)
    step()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as profiled:
        step()
    on = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    taken = {row.key.removeprefix("aten::"): getattr(row, on) for row in profiled.key_averages()}
    whole, most = sum(taken.values()), sorted(taken, key=taken.get, reverse=True)[:OPERATIONS_SHOWN]
    return {
        "size": size,
        "batch": batch,
        "precision": precision,
        "share_by_operation": {name: round(taken[name] / whole, 3) for name in most},
    }


def augmenting(device: torch.device, size: int, batch: int, rounds: int) -> dict:
    """Milliseconds an image that the augmentation of the recipe `strong-polished`, the most there is, takes."""
    plan, grey = recipe.load("strong-polished"), torch.rand(batch, size, size, device=device)
    random = torch.Generator().manual_seed(0)
    taken = seconds_of(lambda: augment(grey, plan.augmentation, random, slice(0, batch), batch), device, rounds)
    return {"size": size, "batch": batch, "milliseconds_an_image": round(taken / batch * 1000, 3)}


def one_of_several(rounds: int) -> None:
    """What each of the processes that `processes` starts does: prints the median seconds of a step."""
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

    seconds = seconds_of(step, accelerator.device, rounds)
    accelerator.print(json.dumps({"processes": accelerator.num_processes, "seconds": seconds}))
    accelerator.end_training()


def processes(rounds: int) -> dict:
    """Images a second of one process on one core, of two on a core each, and of one on two cores."""
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
            raise KoaError(f"{name}: {said['processes']} took part.")
        found[name] = count * SCALING["batch"] / said["seconds"]
    one, two, whole = found.values()
    return {
        "what": f"fp32, {SCALING['size']} px, {SCALING['batch']} images a process and step",
        "images_a_second": {name: round(value, 2) for name, value in found.items()},
        "efficiency_of_two_processes": round(two / (2 * one), 3),
        "efficiency_of_two_threads": round(whole / (2 * one), 3),
    }


def on_paper(steps: dict[str, float]) -> dict:
    """Efficiency of N GPUs that do a step of so many seconds each and then average their gradients in a ring.

    A ring all-reduce of G bytes over N GPUs has each send 2 (N - 1) / N G bytes (Patarasuk and Yuan 2009,
    doi 10.1016/j.jpdc.2008.09.002). DDP does that while the backward pass goes on; here it is counted as if nothing
    overlapped, and the links as if they reached what their makers state.
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
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for way in dict.fromkeys(row["way"] for row in rows):
        chosen = [row for row in rows if row["way"] == way and row["batch"] == rows[0]["batch"]]
        axes.plot([row["size"] for row in chosen], [row["milliseconds_an_image"] for row in chosen], "o-", label=way)
        if way == rows[-1]["way"]:
            axes.plot([row["size"] for row in chosen], [row["ceiling"] for row in chosen], "k--", label="its ceiling")
    axes.set(xlabel="image size, px", ylabel="ms an image, forward and backward", ylim=(0, None))
    axes.legend()
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[32], help="images a step")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--one-of-several", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3, help="steps measured (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="default: results/benchmarks/fine_tune.json, fine_tune_cuda.json")
    args = parser.parse_args()
    name = "fine_tune.json" if args.device == "cpu" else f"fine_tune_{args.device}.json"
    args.output = args.output or ROOT / "results" / "benchmarks" / name
    if args.one_of_several:
        return one_of_several(args.rounds)
    keep_freed_memory()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise KoaError("there is no GPU here; give --device cpu.")
    device = torch.device(args.device)
    fast = choose_precision("auto", device)
    ways = {"fp32, default layout": ("fp32", True, False), f"{fast}, channels last": (fast, False, False)}
    if fast != "fp32":
        ways |= {f"{fast}, default layout": (fast, True, False)}
    if args.compile:
        ways[f"{fast}, channels last, compiled"] = (fast, False, True)
    peaks = {precision: peak(device, precision) for precision in {"fp32", fast}}
    rows = []
    with progress_bar("measuring", len(args.sizes) * len(args.batches) * len(ways), show=True) as advance:
        for size in args.sizes:
            needed = operations(xception.build(pretrained=False), size, backward=True)
            for batch in args.batches:
                for way, (precision, plain, compiled) in ways.items():
                    with contextlib.suppress(torch.OutOfMemoryError):  # then the row is missing
                        taken = (
                            step_seconds(device, size, batch, precision, plain, compiled, args.rounds) / batch * 1000
                        )
                        ceiling = needed / peaks[precision] * 1000
                        rows.append(
                            {
                                "way": way,
                                "size": size,
                                "batch": batch,
                                "milliseconds_an_image": round(taken, 2),
                                "ceiling": round(ceiling, 2),
                                "share_of_the_ceiling": round(ceiling / taken, 2),
                            }
                        )
                    advance()
    baseline = {
        (row["size"], row["batch"]): row["milliseconds_an_image"] for row in rows if row["way"] == next(iter(ways))
    }
    for row in rows:
        if beside := baseline.get((row["size"], row["batch"])):  # it takes the most memory
            row["times_the_baseline"] = round(beside / row["milliseconds_an_image"], 2)
    largest = max((row for row in rows if row["way"] == list(ways)[1]), key=lambda row: (row["size"], row["batch"]))
    step = largest["milliseconds_an_image"] * largest["batch"] / 1000
    result = {
        "what": "ms an image: forward, backward, AdamW step; images on the device already; medians",
        "rows": rows,
        "cpu_processes": processes(args.rounds),
        "where_time_goes": where_time_goes(device, largest["size"], largest["batch"], fast),
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
    record(args.output, result)
    plot(rows, args.output.with_suffix(".png"))
    show(result["what"], rows)


if __name__ == "__main__":
    sys.exit(main())
