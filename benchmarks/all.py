"""All speed benchmarks that this machine can run, one after the other, and the tables of docs/speed.md.

    KOA_DATA=kneeKL224 KOA_WEIGHTS=xception.safetensors python benchmarks/all.py      # or: make bench
    python benchmarks/all.py --only demo_start demo_load

About an hour on two cores, which should otherwise be idle. The data set is built from the release first, unless it
exists. Benchmarks that lack their data or a GPU are skipped with a message; one that fails does not stop the others.
Each also runs by itself, with more options; `student`, which needs a trained run, only so.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reporting import ROOT
from koa_hf.errors import KoaError, exit_2_on_bad_input

DATASET = "data/knee-kl"


@dataclass(frozen=True)
class Benchmark:
    """A script of benchmarks/speed/.

    Attributes:
        name: the benchmark's, and its script's where `script` is empty.
        needs: environment variables that must name existing files.
        data: takes `--dataset`.
        script: module name of the script.
        options: further command-line options.
        gpu: needs a GPU.
    """

    name: str
    needs: tuple[str, ...] = ()
    data: bool = False
    script: str = ""
    options: tuple[str, ...] = ()
    gpu: bool = False


ON_A_GPU = "--device cuda --sizes 299 --batches 64 128 256 --rounds 10 --compile"
BENCHMARKS = (
    Benchmark("demo_start"),
    Benchmark("demo_load"),
    Benchmark("fine_tune"),
    Benchmark("fine_tune_cuda", script="fine_tune", options=tuple(ON_A_GPU.split()), gpu=True),
    Benchmark("reading", needs=("KOA_DATA",), data=True),
    Benchmark("one_xray", needs=("KOA_DATA",), data=True),
    Benchmark("cached_trunk", needs=("KOA_DATA", "KOA_WEIGHTS"), data=True),
    Benchmark("growth", needs=("KOA_DATA",)),
    Benchmark("install"),
    Benchmark("cohort"),
)
NEEDED = {
    "KOA_DATA": "the folder of the public release (with train and val)",
    "KOA_WEIGHTS": "a safetensors file with Xception's ImageNet weights",
}


def missing(name: str) -> bool:
    """True if an environment variable is unset or names no existing path."""
    return not (os.environ.get(name) and Path(os.environ[name]).exists())


def gpu_is_here() -> bool:
    return shutil.which("nvidia-smi") is not None


def succeeds(*command: str) -> bool:
    """Run Python with a command line in the project's folder; True if its exit code is 0."""
    return subprocess.run([sys.executable, *command], cwd=ROOT).returncode == 0


@exit_2_on_bad_input
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [one.name for one in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    args = parser.parse_args()
    chosen = [one for one in BENCHMARKS if one.name in args.only]
    for name in dict.fromkeys(name for one in chosen for name in one.needs if missing(name)):
        skipped = [one.name for one in chosen if name in one.needs]
        print(f"skipped: {', '.join(skipped)}; set {name} to {NEEDED[name]}.", file=sys.stderr)
    for one in chosen:
        if one.gpu and not gpu_is_here():
            print(f"skipped: {one.name}; it needs a GPU.", file=sys.stderr)
    chosen = [one for one in chosen if not any(map(missing, one.needs)) and (gpu_is_here() or not one.gpu)]
    if not chosen:
        raise KoaError("no benchmark can run here.")
    given = ("--dataset", DATASET) if not missing("KOA_DATA") else ()
    builds = given and any(one.data for one in chosen) and not (ROOT / DATASET).exists()
    if builds and not succeeds("-m", "koa_hf", "dataset", "build", os.environ["KOA_DATA"], DATASET):
        raise KoaError(f"{DATASET} could not be built from {os.environ['KOA_DATA']}, see above.")
    failed = []
    for one in chosen:
        print(f"== {one.name}", flush=True)
        began = time.perf_counter()
        script = f"benchmarks/speed/{one.script or one.name}.py"
        if not succeeds(script, *one.options, *(given if one.data else ())):
            failed.append(one.name)
        print(f"== {one.name}: {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
    if failed:
        print(f"failed, see above: {', '.join(failed)}; their earlier results are kept.", file=sys.stderr)
    if not succeeds("benchmarks/tables/speed_tables.py"):
        failed.append("tables")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
