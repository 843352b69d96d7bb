"""run.json: what somebody needs to repeat a run, or to doubt it."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import Accelerator

from koa_hf.files import replacing, write_text
from koa_hf.hub.contents import without_local_paths

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "datasets", "transformers", "evaluate", "numpy", "pillow")


def write(
    path: Path,
    accelerator: Accelerator,
    options: dict,
    fingerprints: dict,
    images: dict,
    dataset_commit: str | None,
    started_from: dict | None = None,
) -> None:
    """The run's options, code, versions, data and machine. A resumed run keeps the record that it began with.

    Args:
        dataset_commit: what the data set's id and revision stood for on the Hub; None for a folder.
        started_from: the model that the run continues, and its revision; None for one that continues none.
    """
    if not accelerator.is_main_process:
        return
    earlier = json.loads(path.read_text()) if options["resume"] and path.exists() else {}
    this = {
        "command": command("accelerate launch"),
        "options": options,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        **({"started_from": started_from} if started_from else {}),
        "dataset": {
            # A folder is known by its fingerprints; on the Hub these two say where to get it again.
            **({"id": options["dataset"], "commit": dataset_commit} if dataset_commit else {}),
            "fingerprints": fingerprints,
            "images": images,
        },
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": {
            "device": accelerator.device.type,
            "processor": processor(),
            "processes": accelerator.num_processes,
            "precision": accelerator.mixed_precision,
        },
    }
    if earlier:
        earlier.setdefault("resumed", []).append(this["started"])
        this = earlier
    write_text(path, json.dumps(this, indent=2) + "\n")


def finish(path: Path, seconds: dict) -> None:
    """Add how long it took."""
    finished = {**json.loads(path.read_text()), "seconds": seconds}
    write_text(path, json.dumps(finished, indent=2) + "\n")


def keep(run: Path, names: Iterable[str], results: Path) -> None:
    """Copy some of a run's files, in this order, to where everybody reads them: run.json without its own folders."""
    for name in names:
        with replacing(results / name) as partial:
            if name == "run.json":
                partial.write_bytes(without_local_paths(run / name))
            else:
                shutil.copyfile(run / name, partial)


def command(launcher: str) -> str:
    """What this process was started with; a script of the project is named from the project's folder."""
    script = Path(sys.argv[0])
    if script.is_absolute() and script.is_relative_to(ROOT):
        script = script.relative_to(ROOT)
    return " ".join([launcher, str(script), *sys.argv[1:]])


def is_finished(path: Path) -> bool:
    """Whether the run with this run.json came to its end; what is written after that can be made again."""
    return path.is_file() and "seconds" in json.loads(path.read_text())


def git_commit() -> str | None:
    """The checkout's commit, with `-dirty` where what computes differs from it; None outside a checkout.

    Results and Markdown, which scripts write, don't count.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!*.md")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """The CPU's name, the widest instructions that torch uses there, and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Two generations of a processor may have one name, and differ in this by a factor of three.
    return f"{name} with {torch.backends.cpu.get_cpu_capability()}, {cores} cores"
