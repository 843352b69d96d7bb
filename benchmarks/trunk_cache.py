"""What the trunk cache saves: the paper recipe with and without it, side by side in one run.

    python benchmarks/trunk_cache.py --dataset data/knee-kl --pretrained-weights xception.safetensors

Trains on --images images a split twice, one process after the other: with the cache, and without it (the trunk with
folded normalisation, anew in each epoch). The plain loop, whose trunk isn't folded, is the second plus the difference
between a forward pass of the two trunks, measured here too. Writes results/benchmarks/trunk_cache.json.
Figures for the whole release are the measured ones times the number of images.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from rich.console import Console
from rich.table import Table

from koa_hf import xception
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.precision import choose_precision
from train.record import PACKAGES, git_commit, processor

TRAIN, VALIDATION = 5778, 826  # images of the release
STAGE_1_EPOCHS, STAGE_2_EPOCHS = 5, 8


def measured_run(args: argparse.Namespace, folder: Path, *options: str) -> tuple[list[dict], dict]:
    """Two epochs of each stage on a part of the data; the second of each is the one to look at."""
    out = folder / ("plain" if options else "cached")
    command = [
        *(sys.executable, str(ROOT / "train" / "run.py"), "--recipe", "paper", "--cpu"),
        *("--dataset", args.dataset, "--pretrained-weights", args.pretrained_weights, "--output-dir", str(out)),
        *("--limit", str(args.images), "--set", "stages.0.epochs=2", "--set", "stages.1.epochs=2", *options),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    history = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return history, json.loads((out / "run.json").read_text())


def trunk_milliseconds(args: argparse.Namespace, folded: bool) -> float:
    """One forward pass of the trunk, per image, in the precision that the runs use; best of five batches of 16."""
    model = xception.build(args.pretrained_weights).eval()
    model = xception.folded(model) if folded else model
    model.to(memory_format=torch.channels_last)
    images = torch.randn(16, 3, 299, 299).contiguous(memory_format=torch.channels_last)
    bf16 = choose_precision("auto") == "bf16"
    seconds = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for _ in range(6):
            began = time.perf_counter()
            xception.run_steps(model, images, "conv1", "block11")
            seconds.append(time.perf_counter() - began)
    return min(seconds[1:]) / 16 * 1000


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="the built release")
    parser.add_argument("--pretrained-weights", default=os.environ.get("KOA_WEIGHTS"), help="default: $KOA_WEIGHTS")
    parser.add_argument("--images", type=int, default=320, help="of each split")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "benchmarks" / "trunk_cache.json")
    args = parser.parse_args()
    if not args.pretrained_weights:
        raise KoaError(
            "name the ImageNet weights with --pretrained-weights PATH or the environment variable KOA_WEIGHTS."
        )
    with tempfile.TemporaryDirectory() as folder:
        cached, cached_record = measured_run(args, Path(folder))
        plain, _ = measured_run(args, Path(folder), "--no-cache")

    def epoch(row: dict) -> float:
        """Seconds of one epoch over the whole release, validation included."""
        each = {split: seconds / args.images for split, seconds in row["seconds"].items()}
        return each["train"] * TRAIN + each["validation"] * VALIDATION

    trunk_once = cached_record["seconds"]["trunk_cache"] / (2 * args.images) * (TRAIN + VALIDATION)
    unfolded, folded = trunk_milliseconds(args, folded=False), trunk_milliseconds(args, folded=True)
    slower_trunk = (unfolded - folded) / 1000 * (TRAIN + VALIDATION)
    rows = {
        "cached": {"trunk_once": trunk_once, "stage_1_epoch": epoch(cached[1]), "stage_2_epoch": epoch(cached[3])},
        "not_cached_folded_trunk": {
            "trunk_once": 0.0,
            "stage_1_epoch": epoch(plain[1]),
            "stage_2_epoch": epoch(plain[3]),
        },
    }
    rows["not_cached_plain_trunk"] = {
        name: seconds + slower_trunk if name != "trunk_once" else 0.0
        for name, seconds in rows["not_cached_folded_trunk"].items()
    }
    for row in rows.values():
        row["whole_recipe"] = (
            row["trunk_once"] + STAGE_1_EPOCHS * row["stage_1_epoch"] + STAGE_2_EPOCHS * row["stage_2_epoch"]
        )
    result = {
        "what": f"seconds for the whole release ({TRAIN} + {VALIDATION} images), from {args.images} images a split",
        "seconds": {name: {part: round(seconds, 1) for part, seconds in row.items()} for name, row in rows.items()},
        "times_the_plain_loop": {
            name: round(rows["not_cached_plain_trunk"]["whole_recipe"] / row["whole_recipe"], 2)
            for name, row in rows.items()
        },
        "trunk_milliseconds_an_image": {"plain": round(unfolded, 1), "folded": round(folded, 1)},
        "largest_loss_difference": max(
            abs(a[split]["loss"] - b[split]["loss"])
            for a, b in zip(cached, plain, strict=True)
            for split in ("train", "validation")
        ),
        "precision": cached_record["machine"]["precision"],
        "processor": processor(),
        "packages": {name: cached_record["packages"][name] for name in PACKAGES},
        "git_commit": git_commit(),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, json.dumps(result, indent=2) + "\n")
    table = Table(title=result["what"])
    for column in ("", "trunk once", "stage 1 epoch", "stage 2 epoch", "13 epochs", "times the plain loop"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(
            name.replace("_", " "), *(f"{row[part]:.0f}" for part in row), str(result["times_the_plain_loop"][name])
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
