"""Bytes that `pip install -r requirements.txt` installs, by package, and seconds that commands take to start.

    python benchmarks/speed/install.py

Counts the files of each installed distribution that requirements.txt needs, directly or not. Each command runs in new
processes; the first, untimed, fills the file cache and converts the network for OpenVINO. Writes
results/benchmarks/install.json.
"""

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.reporting import RESULTS, ROOT, print_table, write_result
from benchmarks.speed.timing import median_seconds_in_turn
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.imaging import phantom

SHOWN = 14
STARTS = 5


def requirements(text: str) -> list[Requirement]:
    """The requirements of a file like requirements.txt."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def needed(direct: list[Requirement]) -> dict[str, tuple[Distribution, str]]:
    """The installed distributions that these need, by name, each with the direct requirement that brings it first."""
    found: dict[str, tuple[Distribution, str]] = {}
    for first in direct:
        waiting = [first]
        while waiting:
            requirement = waiting.pop()
            name = canonicalize_name(requirement.name)
            if name in found:
                continue
            try:
                found[name] = distribution(name), first.name
            except PackageNotFoundError:  # for another platform
                continue
            for text in found[name][0].requires or ():
                further = Requirement(text)
                extras = ("", *requirement.extras)
                if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                    waiting.append(further)
    return found


def bytes_of(package: Distribution) -> int:
    """Bytes of a distribution's files."""
    paths = (Path(str(package.locate_file(file))) for file in package.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def seconds_of_commands() -> dict[str, float]:
    """Median seconds of two commands as processes of their own, and of the imports that the slower one can't avoid."""
    koa = [sys.executable, "-m", "koa_hf"]
    with tempfile.TemporaryDirectory() as folder:
        knee = Path(folder, "one.png")
        knee.write_bytes(phantom.as_png(phantom.draw_knee(2, seed=1)))
        commands = {
            "koa --help": [*koa, "--help"],
            "koa grade one.png": [*koa, "grade", str(knee)],
            "import torch, timm": [sys.executable, "-c", "import torch, timm"],
        }
        run = partial(subprocess.run, cwd=ROOT, capture_output=True, check=True)
        taken = median_seconds_in_turn({name: partial(run, command) for name, command in commands.items()}, STARTS)
    return {name: round(seconds, 2) for name, seconds in taken.items()}


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    found = needed(requirements((ROOT / "requirements.txt").read_text()))
    rows = [
        {"package": name, "version": package.version, "brought_by": by, "megabytes": round(bytes_of(package) / 1e6, 1)}
        for name, (package, by) in found.items()
    ]
    rows.sort(key=lambda row: -row["megabytes"])
    result = {
        "what": "bytes that requirements.txt installs, by package; seconds of commands, median of new processes",
        "packages_installed": len(rows),
        "megabytes": round(sum(row["megabytes"] for row in rows)),
        "rows": rows,
        "seconds_of_commands": seconds_of_commands(),
    }
    write_result(RESULTS / "benchmarks" / "install.json", result)
    print_table("Seconds", [result["seconds_of_commands"]])
    print_table(f"{len(rows)} packages, {result['megabytes']} MB", rows[:SHOWN])


if __name__ == "__main__":
    sys.exit(main())
