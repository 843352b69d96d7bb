"""run.json: options, code, versions, data and machine of a run, so that it can be repeated or doubted."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import Accelerator

from koa_hf.cores import available_cores
from koa_hf.files import replacing, write_text
from koa_hf.hub.contents import without_local_paths

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "datasets", "transformers", "evaluate", "numpy", "pillow")


def begin_record(
    path: Path,
    accelerator: Accelerator,
    options: dict,
    fingerprints: dict,
    images: dict,
    dataset_commit: str | None,
    started_from: dict | None = None,
    taught_by: Sequence[dict] = (),
) -> None:
    """Write the record of a run that starts. A resumed run keeps its first record and adds the time.

    Args:
        fingerprints: of each split.
        images: number of images in each split.
        dataset_commit: what the data set's id and revision stood for on the Hub; None for a folder.
        started_from: name and revision of the model that the run continues, if any.
        taught_by: the same of the models named by `--teacher`.
    """
    earlier = json.loads(path.read_text()) if options["resume"] and path.exists() else {}
    on_gpu = accelerator.device.type == "cuda"
    this = {
        "command": command_line("accelerate launch"),
        "options": options,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        **({"started_from": started_from} if started_from else {}),
        **({"taught_by": taught_by} if taught_by else {}),
        "dataset": {
            # A folder is identified by its fingerprints; a data set on the Hub by these two as well.
            **({"id": options["dataset"], "commit": dataset_commit} if dataset_commit else {}),
            "fingerprints": fingerprints,
            "images": images,
        },
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": {
            "device": accelerator.device.type,
            **({"device_name": torch.cuda.get_device_name(accelerator.device)} if on_gpu else {}),
            "processor": processor(),
            "processes": accelerator.num_processes,
            "precision": accelerator.mixed_precision,
        },
    }
    if earlier:
        earlier.setdefault("resumed", []).append(this["started"])
        this = earlier
    write_text(path, json.dumps(this, indent=2) + "\n")


def finish_record(path: Path, seconds: dict) -> None:
    """Add how long the run took, which also marks it as complete."""
    finished = {**json.loads(path.read_text()), "seconds": seconds}
    write_text(path, json.dumps(finished, indent=2) + "\n")


def copy_files(run: Path, names: Iterable[str], results: Path) -> None:
    """Copy files of a run to a public folder, in this order; run.json without paths of this machine."""
    for name in names:
        with replacing(results / name) as partial:
            if name == "run.json":
                partial.write_bytes(without_local_paths(run / name))
            else:
                shutil.copyfile(run / name, partial)


def command_line(launcher: str) -> str:
    """The command that started this process; a script of the project is named relative to the project."""
    script = Path(sys.argv[0])
    if script.is_absolute() and script.is_relative_to(ROOT):
        script = script.relative_to(ROOT)
    return " ".join([launcher, str(script), *sys.argv[1:]])


def is_complete(path: Path) -> bool:
    """True if the run of this run.json came to its end. Anything written later can be made again."""
    return path.is_file() and "seconds" in json.loads(path.read_text())


def git_commit() -> str | None:
    """Commit of the checkout, with `-dirty` if tracked code differs from it; None outside a checkout.

    Results and Markdown, which scripts write, don't count as code.
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
    """CPU model, the widest instruction set that torch uses on it, and the cores available to this process."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    # With the instruction set, because processors of one name may differ in it, and in speed by a factor of three.
    return f"{name} with {torch.backends.cpu.get_cpu_capability()}, {available_cores()} cores"
