"""How fast training gets its images, by where they are read from and by how many processes.

    python benchmarks/speed/reading.py --dataset data/knee-kl

The baseline decodes every image anew in every epoch; beside it what train/run.py does where the data set fits into
memory (the first epoch, and the later ones), and what decoding ahead in other processes (`--workers`) brings. The
ceiling is a copy in memory of what is read, and what is aimed at is an H100's rate (benchmarks/speed/fine_tune.py). The ways
take turns. Writes results/benchmarks/reading.json and a plot of it.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from benchmarks.recording import record, show
from benchmarks.speed.ceiling import copied
from benchmarks.speed.fine_tune import GOAL
from koa_hf.data.load import load_dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import replacing
from koa_hf.network.preprocess import Preprocessing
from koa_hf.progress import progress_bar
from train.loop.knee_images import KneeImages, choose_split
from train.run import limited

ROOT = Path(__file__).resolve().parents[2]


def images_a_second(loader: DataLoader) -> float:
    """Of one epoch, in batches."""
    began = time.perf_counter()
    read = sum(len(batch["label"]) for batch in loader)
    return read / (time.perf_counter() - began)


def plot(rows: list[dict], ceiling: float, path: Path) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        [row["way"] for row in rows[::-1]], [row["images_a_second"] for row in rows[::-1]], color="#0d9488"
    )
    axes.bar_label(bars, padding=3, fmt="%.0f")
    axes.axvline(GOAL["images_a_second"], color="#c2571a", ls="--", label="an H100's goal")
    axes.axvline(ceiling, color="k", ls="--", label="a copy in memory")
    axes.set(xlabel="images a second", xscale="log", xlim=(100, 2 * ceiling))
    axes.legend(fontsize="small", loc="lower right")
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--images", type=int, default=1024, metavar="N", help="an epoch (default: %(default)s)")
    parser.add_argument("--size", type=int, default=299, help="pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="images (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=3, help="times each (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "benchmarks" / "reading.json")
    args = parser.parse_args()
    split = limited(choose_split(load_dataset(args.dataset), "train", args.dataset), args.images)
    torch.set_num_threads(1)  # nobody but the reader works here

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
    record(
        args.output,
        {
            "what": f"{len(split)} images at {args.size} px in batches of {args.batch}; medians of {args.rounds}",
            "rows": rows,
            "memory_copy_images_a_second": round(ceiling),
            **({"goal_images_a_second": GOAL["images_a_second"]} if args.size == GOAL["size"] else {}),
        },
    )
    plot(rows, ceiling, args.output.with_suffix(".png"))
    show("reading", rows)


if __name__ == "__main__":
    sys.exit(main())
