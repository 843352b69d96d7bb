"""Images per second that training reads: decoded, from memory, and with worker processes.

    python benchmarks/speed/reading.py --dataset data/knee-kl

The baseline decodes every image in every epoch. Beside it: images kept in memory, as train/run.py does where the data
set fits (first and later epochs), and decoding in worker processes (`--workers`). The ceiling is a memory copy of the
same bytes, the goal an H100's rate (benchmarks/speed/fine_tune.py). The loaders alternate. Writes
results/benchmarks/reading.json and a plot.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from benchmarks.reporting import RESULTS, TEAL, print_table, save_figure, write_result
from benchmarks.speed.ceiling import copied
from benchmarks.speed.fine_tune import GOAL
from koa_hf.data.load import load_dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.network.preprocess import Preprocessing
from koa_hf.progress import progress_bar
from train.loop.knee_images import KneeImages, choose_split, evenly_spaced


def images_a_second(loader: DataLoader) -> float:
    """Rate over one epoch."""
    began = time.perf_counter()
    read = sum(len(batch["label"]) for batch in loader)
    return read / (time.perf_counter() - began)


def plot(rows: list[dict], ceiling: float, path: Path) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([row["way"] for row in rows[::-1]], [row["images_a_second"] for row in rows[::-1]], color=TEAL)
    axes.bar_label(bars, padding=3, fmt="%.0f")
    axes.axvline(GOAL["images_a_second"], color="#c2571a", ls="--", label="goal for an H100")
    axes.axvline(ceiling, color="k", ls="--", label="memory copy")
    axes.set(xlabel="images per second", xscale="log", xlim=(100, 2 * ceiling))
    axes.legend(fontsize="small", loc="lower right")
    save_figure(figure, path)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--images", type=int, default=1024, metavar="N", help="images per epoch (default: %(default)s)")
    parser.add_argument("--size", type=int, default=299, help="image size, pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="batch size (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="worker processes (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=3, help="epochs per loader (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "benchmarks" / "reading.json")
    args = parser.parse_args()
    split = evenly_spaced(choose_split(load_dataset(args.dataset), "train", args.dataset), args.images)
    torch.set_num_threads(1)  # the workers decode; torch has nothing to compute

    def reader(keep: bool = False, workers: int = 0) -> DataLoader:
        images = KneeImages(split, Preprocessing(args.size), keep=keep)
        return DataLoader(images, args.batch, shuffle=True, num_workers=workers)

    rates: dict[str, list[float]] = {}
    with progress_bar("reading", args.rounds * (3 + len(args.workers)), show=True) as advance:

        def measure(way: str, loader: DataLoader) -> None:
            rates.setdefault(way, []).append(images_a_second(loader))
            advance()

        for _ in range(args.rounds):
            measure("decoded in every epoch", reader())
            kept = reader(keep=True)
            measure("kept in memory, first epoch", kept)
            measure("kept in memory, later epochs", kept)
            for count in args.workers:
                measure(f"decoded in every epoch, --workers {count}", reader(workers=count))
    ceiling = copied(torch.device("cpu")) / args.size**2
    medians = {way: statistics.median(each) for way, each in rates.items()}
    baseline = next(iter(medians.values()))
    rows = [
        {
            "way": way,
            "images_a_second": round(rate),
            "times_the_baseline": round(rate / baseline, 2),
            "share_of_the_ceiling": round(rate / ceiling, 4),
        }
        for way, rate in medians.items()
    ]
    write_result(
        args.output,
        {
            "what": f"{len(split)} images at {args.size} px in batches of {args.batch}; medians of {args.rounds}",
            "rows": rows,
            "memory_copy_images_a_second": round(ceiling),
            **({"goal_images_a_second": GOAL["images_a_second"]} if args.size == GOAL["size"] else {}),
        },
    )
    plot(rows, ceiling, args.output.with_suffix(".png"))
    print_table("reading", rows)


if __name__ == "__main__":
    sys.exit(main())
