"""The full fine-tune: milliseconds an image, forward, backward and optimiser step, by image size and precision.

    python benchmarks/fine_tune.py
    python benchmarks/fine_tune.py --device cuda --sizes 224 299 384 --batches 32 64 128 256 --compile

The ceiling is what the same multiplications take in this machine's own matrix product, measured in the same run; the
baseline is the plain loop: float32, and memory laid out as torch does by default. Writes
results/benchmarks/fine_tune.json and a plot of it.
"""

import argparse
import contextlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from benchmarks.ceiling import operations, peak, seconds_of
from koa_hf import xception
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import replacing, write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.precision import autocast, choose_precision
from koa_hf.progress import progress_bar
from train.record import git_commit, processor

SIZES = (128, 160, 192, 224, 299)


def step_seconds(
    device: torch.device, size: int, batch: int, precision: str, plain: bool, compiled: bool, rounds: int
) -> float:
    """Median seconds of one training step on images that are on the device already."""
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

    return seconds_of(step, device, rounds)


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
    parser.add_argument("--rounds", type=int, default=3, help="steps measured (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "benchmarks" / "fine_tune.json")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise KoaError("there is no GPU here; give --device cpu.")
    device = torch.device(args.device)
    fast = choose_precision("auto", device)
    ways = {"fp32, default layout": ("fp32", True, False), f"{fast}, channels last": (fast, False, False)}
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
        row["times_the_baseline"] = round(baseline[row["size"], row["batch"]] / row["milliseconds_an_image"], 2)
    result = {
        "what": "ms an image: forward, backward, AdamW step; images on the device already; medians",
        "rows": rows,
        "matrix_product_gflops": {precision: round(value / 1e9) for precision, value in peaks.items()},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "packages": {name: version(name) for name in ("torch", "timm")},
        "git_commit": git_commit(),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, json.dumps(result, indent=2) + "\n")
    plot(rows, args.output.with_suffix(".png"))
    table = Table(title=result["what"])
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
