"""Growth of time and memory with the data: each step at 1, 4 and 16 times a base.

    python benchmarks/speed/growth.py --data kneeKL224
    python benchmarks/speed/growth.py --data kneeKL224 --release-images 1000 --network-images 48    # a quick look

The base is repeated under new patient ids in a temporary folder. Build, verify and the validation of an untrained
network on small images start from the whole release; the trunk cache and the validation of the bundled model, both
dominated by the network, start from a part of it. Each step is the real command in a process of its own; measured are
its wall time and its peak memory without memory-mapped files, whose pages the system can reclaim.

`times_proportion` is the time relative to proportional growth from the base: 1 is linear, less where start-up time
counts. Writes results/benchmarks/growth.json and a plot.
"""

import argparse
import itertools
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from matplotlib.figure import Figure

from benchmarks.reporting import RESULTS, ROOT, print_table, save_figure, write_result
from koa_hf.data.release import Release, ReleaseImage
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grades import NUM_GRADES
from koa_hf.network import xception
from koa_hf.network.model_folder import BUNDLED_MODEL

FACTORS = (1, 4, 16)
FOLDERS = {"train": "train", "validation": "val", "test": "test"}
FIRST_PATIENT = 1_000_000
LEAST = 2 * NUM_GRADES  # images: a split needs every grade
SMALL = 71  # pixels: the smallest input of the network


@dataclass(frozen=True)
class Cost:
    """Cost of one process: wall and processor seconds; peak memory in MB, without and with memory-mapped files."""

    seconds: float
    processor_seconds: float
    megabytes: float
    with_mapped_files: float


def cost(command: list[str], environment: dict[str, str], code: int = 0) -> Cost:
    """Run a command and measure it.

    Raises:
        KoaError: its exit code is not `code`.
    """
    with tempfile.TemporaryFile() as said:
        before, began = os.times(), time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=said, stderr=subprocess.STDOUT
        )
        own = mapped = 0
        while process.poll() is None:
            try:
                memory = psutil.Process(process.pid).memory_info()
            except psutil.Error:  # it has just ended
                break
            own, mapped = max(own, memory.rss - getattr(memory, "shared", 0)), max(mapped, memory.rss)
            time.sleep(0.02)
        ended, seconds, after = process.wait(), time.perf_counter() - began, os.times()
        if ended != code:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            raise KoaError(f"`{' '.join(command[1:4])} ...` ended with exit code {ended}: {''.join(last)}")
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(seconds, busy, own / 1e6, mapped / 1e6)


def part_of(knees: list[ReleaseImage], images: int | None) -> list[ReleaseImage]:
    """About `images` knees of a release, equally many per split and grade; all of them for None."""
    if images is None:
        return knees
    groups = defaultdict(list)
    for knee in knees:
        groups[knee.split, knee.label].append(knee)
    each = math.ceil(images / len(groups))
    return [knee for group in groups.values() for knee in group[:each]]


def repeat(release: Release, knees: list[ReleaseImage], times: int, folder: Path) -> None:
    """Write a release-shaped folder with the knees repeated `times` times, each time as new patients."""
    patients = {patient: i for i, patient in enumerate(sorted({knee.patient_id for knee in knees}))}
    for split in {knee.split for knee in knees}:
        for grade in range(NUM_GRADES):
            (folder / FOLDERS[split] / str(grade)).mkdir(parents=True)
    for knee in knees:
        first = None
        for copy in range(times):
            patient = FIRST_PATIENT + copy * len(patients) + patients[knee.patient_id]
            path = folder / FOLDERS[knee.split] / str(knee.label) / f"{patient}{knee.side[0].upper()}.png"
            if first is None:
                path.write_bytes(release.read(knee.member))
                first = path
            else:
                os.link(first, path)


Rows = dict[str, list[dict]]


def row(step: str, images: int, measured: Cost) -> dict:
    print(f"{step}, {images} images: {measured.seconds:.1f} s, {measured.megabytes:.0f} MB", flush=True)
    return {"images": images, **asdict(measured)}


def built(
    release: Release, knees: list[ReleaseImage], factor: int, folder: Path, environment: dict
) -> tuple[str, Cost]:
    """Build a data set of the knees repeated `factor` times; its folder, and the cost."""
    repeat(release, knees, factor, folder / "in")
    command = [sys.executable, "-m", "koa_hf", "dataset", "build", str(folder / "in"), str(folder / "out")]
    return str(folder / "out"), cost(command, environment)


def evaluated(model: str, data: str, knees: list[ReleaseImage], folder: Path, environment: dict) -> tuple[int, Cost]:
    """Validate a model; the number of base knees in the split, and the cost."""
    splits = [knee.split for knee in knees]
    split = "validation" if "validation" in splits else splits[0]
    command = [sys.executable, "train/validate.py", "--cpu", "--model", model, "--dataset", data, "--split", split]
    return splits.count(split), cost([*command, "--output-dir", str(folder / "evaluation")], environment)


def of_release(release: Release, knees: list[ReleaseImage], factor: int, folder: Path, environment: dict) -> Rows:
    """Build, verify, and a validation at a size where the network takes little of the time."""
    data, build = built(release, knees, factor, folder, environment)
    images = factor * len(knees)
    # Repeated knees are duplicates, which verify reports.
    verify = cost([sys.executable, "-m", "koa_hf", "dataset", "verify", data], environment, code=2 if factor > 1 else 0)
    xception.save_model(xception.build(pretrained=False), folder / "small", SMALL, "untrained")
    count, evaluation = evaluated(str(folder / "small"), data, knees, folder, environment)
    small = f"evaluation at {SMALL} px"
    return {
        "build": [row("build", images, build)],
        "verify": [row("verify", images, verify)],
        small: [row(small, factor * count, evaluation)],
    }


def with_network(release: Release, knees: list[ReleaseImage], factor: int, folder: Path, environment: dict) -> Rows:
    """Trunk cache, and validation of the bundled model."""
    data, _ = built(release, knees, factor, folder, environment)
    command = [sys.executable, "benchmarks/speed/fill_trunk_cache.py", data, "--folder", str(folder / "cache")]
    cache = cost(command, environment)
    count, evaluation = evaluated(BUNDLED_MODEL, data, knees, folder, environment)
    return {
        "trunk cache": [row("trunk cache", factor * len(knees), cache)],
        "evaluation": [row("evaluation", factor * count, evaluation)],
    }


def measure(args: argparse.Namespace, release: Release, folder: Path) -> Rows:
    """Measure each step at each factor."""
    knees = [knee for knee in release.scan()[0] if knee.split in FOLDERS]
    environment = {"HF_DATASETS_CACHE": str(folder / "datasets"), "HF_HUB_OFFLINE": "1"}
    parts = {"release": (of_release, args.release_images), "network": (with_network, args.network_images)}
    found: Rows = {}
    for name in args.only:
        steps, images = parts[name]
        base = part_of(knees, images)
        for factor in args.factors:
            here = folder / f"{name}-{factor}"
            for step, rows in steps(release, base, factor, here, environment).items():
                found.setdefault(step, []).extend(rows)
            if not args.keep:
                shutil.rmtree(here)
                shutil.rmtree(folder / "datasets", ignore_errors=True)
    return found


def grown(rows: list[dict]) -> dict:
    """Rows of a step, and its growth.

    `seconds_an_image_more` is the marginal cost per image between neighbouring sizes, seconds; `linearity` the last of
    these relative to the first (1.0 is linear); `megabytes_more_in_100000` the growth of peak memory per 100,000
    images, from the two largest sizes.
    """
    first, last = rows[0], rows[-1]
    shown = [
        {
            "images": row["images"],
            "seconds": round(row["seconds"], 2),
            "processor_seconds": round(row["processor_seconds"], 2),
            "seconds_an_image": round(row["seconds"] / row["images"], 5),
            "times_the_baseline": round(row["seconds"] / first["seconds"], 2),
            "times_proportion": round(row["seconds"] / first["seconds"] / (row["images"] / first["images"]), 2),
            "peak_megabytes": round(row["megabytes"]),
            "peak_megabytes_with_mapped_files": round(row["with_mapped_files"]),
        }
        for row in rows
    ]
    if len(rows) == 1:
        return {"rows": shown}
    before = rows[-2]
    more = last["images"] - before["images"]
    steps = [(b["seconds"] - a["seconds"]) / (b["images"] - a["images"]) for a, b in itertools.pairwise(rows)]
    return {
        "rows": shown,
        "seconds_an_image_more": [round(step, 5) for step in steps],
        "linearity": round(steps[-1] / steps[0], 2) if steps[0] > 0 else None,
        "peak_times_the_baseline": round(last["megabytes"] / first["megabytes"], 2),
        "megabytes_more_in_100000": round((last["megabytes"] - before["megabytes"]) / more * 100_000),
    }


def plot(steps: dict[str, dict], path: Path) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for name, step in steps.items():
        factors = [row["images"] / step["rows"][0]["images"] for row in step["rows"]]
        time_axes.plot(factors, [row["times_the_baseline"] for row in step["rows"]], "o-", label=name)
        memory_axes.plot(factors, [row["peak_megabytes"] for row in step["rows"]], "o-", label=name)
    time_axes.plot(factors, factors, "k--", label="proportional")
    time_axes.set(xlabel="images, relative", ylabel="time, relative", xscale="log", yscale="log")
    memory_axes.set(xlabel="images, relative", ylabel="peak memory, MB", xscale="log", ylim=(0, None))
    labels = [f"{factor:g}" for factor in factors]
    time_axes.set_yticks(factors, labels)
    for axes in (time_axes, memory_axes):
        axes.set_xticks(factors, labels)
        axes.minorticks_off()
    time_axes.legend()
    save_figure(figure, path)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("KOA_DATA"), help="the release (default: $KOA_DATA)")
    parser.add_argument("--factors", type=int, nargs="+", default=FACTORS, help="default: 1 4 16")
    parser.add_argument(
        "--release-images",
        type=int,
        metavar="N",
        help="base of build, verify and validation at small size (default: the whole release)",
    )
    parser.add_argument(
        "--network-images",
        type=int,
        default=96,
        metavar="N",
        help="base of trunk cache and validation (default: %(default)s: minutes at 16 times on two cores)",
    )
    parser.add_argument(
        "--only",
        choices=("release", "network"),
        nargs="+",
        default=("release", "network"),
        help="steps that start from the whole release, or those dominated by the network (default: both)",
    )
    parser.add_argument("--folder", type=Path, help="working folder (default: the system's temporary folder)")
    parser.add_argument("--keep", action="store_true", help="keep the working folder")
    parser.add_argument("--output", type=Path, default=RESULTS / "benchmarks" / "growth.json")
    args = parser.parse_args()
    if not args.data:
        raise KoaError("name the release's folder or zip with --data PATH or the environment variable KOA_DATA.")
    if min(args.network_images, args.release_images or LEAST) < LEAST or min(args.factors) < 1:
        raise KoaError(f"give at least {LEAST} images, so that every split has every grade, and factors from 1.")
    factors = args.factors = sorted(set(args.factors))
    folder = Path(tempfile.mkdtemp(prefix="koa-growth-", dir=args.folder))
    try:
        with Release(args.data) as release:
            found = measure(args, release, folder)
    finally:
        if args.keep:
            print(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    steps = {name: grown(rows) for name, rows in found.items()}
    write_result(
        args.output,
        {
            "what": f"each step at {', '.join(map(str, factors))} times its base, a process of its own; one run each",
            "steps": steps,
        },
    )
    plot(steps, args.output.with_suffix(".png"))
    for name, step in steps.items():
        print_table(name, step["rows"])


if __name__ == "__main__":
    sys.exit(main())
