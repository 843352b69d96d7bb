"""Every benchmark of speed, load and growth that this machine can run, one after the other, and the README's tables.

    KOA_DATA=kneeKL224 KOA_WEIGHTS=xception.safetensors python benchmarks/all.py      # or: make bench
    python benchmarks/all.py --only demo demo_load

About an hour on two cores, which should have nothing else to do. Each also runs by itself, with more options. The data
set is built from the release at first, where it isn't there yet. What can't be run, or fails, is said in a sentence and
stops none of the others.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from koa_hf.errors import KoaError, exit_2_on_bad_input

ROOT = Path(__file__).resolve().parents[1]

DATASET = "data/knee-kl"


@dataclass(frozen=True)
class Benchmark:
    """A script of this folder.

    Attributes:
        name: of its result, and of its file where `script` names none.
        needs: the environment variables that it can't do without.
        data: it is given the data set, where that can be had.
        options: what it is told besides.
        gpu: it needs one.
    """

    name: str
    needs: tuple[str, ...] = ()
    data: bool = False
    script: str = ""
    options: tuple[str, ...] = ()
    gpu: bool = False


ON_A_GPU = "--device cuda --sizes 224 299 384 --batches 32 64 128 256 --compile"
BENCHMARKS = (
    Benchmark("demo"),
    Benchmark("demo_load"),
    Benchmark("fine_tune"),
    Benchmark("fine_tune_cuda", script="fine_tune", options=tuple(ON_A_GPU.split()), gpu=True),
    Benchmark("reading", needs=("KOA_DATA",), data=True),
    Benchmark("one_xray", needs=("KOA_DATA",), data=True),
    Benchmark("trunk_cache", needs=("KOA_DATA", "KOA_WEIGHTS"), data=True),
    Benchmark("growth", needs=("KOA_DATA",)),
)
NEEDED = {
    "KOA_DATA": "the folder of the public release (the one that holds train and val)",
    "KOA_WEIGHTS": "a safetensors file of Xception's ImageNet weights",
}


def missing(name: str) -> bool:
    """Whether an environment variable names nothing that is there."""
    return not (os.environ.get(name) and Path(os.environ[name]).exists())


def gpu_is_here() -> bool:
    return shutil.which("nvidia-smi") is not None


def run(*command: str) -> bool:
    """Run a script of the project; whether it ended well."""
    return subprocess.run([sys.executable, *command], cwd=ROOT).returncode == 0


@exit_2_on_bad_input
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [one.name for one in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    args = parser.parse_args()
    chosen = [one for one in BENCHMARKS if one.name in args.only]
    for name in dict.fromkeys(name for one in chosen for name in one.needs if missing(name)):
        left = [one.name for one in chosen if name in one.needs]
        print(f"{name} doesn't name {NEEDED[name]}, so {', '.join(left)} can't be run.", file=sys.stderr)
    for one in chosen:
        if one.gpu and not gpu_is_here():
            print(f"there is no GPU here, so {one.name} can't be run.", file=sys.stderr)
    chosen = [one for one in chosen if not any(map(missing, one.needs)) and (gpu_is_here() or not one.gpu)]
    if not chosen:
        raise KoaError("there is nothing to run.")
    given = ("--dataset", DATASET) if not missing("KOA_DATA") else ()
    builds = given and any(one.data for one in chosen) and not (ROOT / DATASET).exists()
    if builds and not run("-m", "koa_hf", "dataset", "build", os.environ["KOA_DATA"], DATASET):
        raise KoaError(f"{DATASET} could not be built of {os.environ['KOA_DATA']}, for the reason above.")
    failed = []
    for one in chosen:
        print(f"== {one.name}", flush=True)
        began = time.perf_counter()
        if not run(f"benchmarks/{one.script or one.name}.py", *one.options, *(given if one.data else ())):
            failed.append(one.name)
        print(f"== {one.name}: {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
    if failed:
        print(f"failed, for the reasons above: {', '.join(failed)}; their old results stay.", file=sys.stderr)
    if not run("benchmarks/tables/speed_tables.py"):
        failed.append("tables")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
