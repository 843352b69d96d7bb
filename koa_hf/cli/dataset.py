"""`koa dataset build`, `koa dataset verify` and `koa phantom`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from koa_hf.cli.options import check_output, describe
from koa_hf.grades import GRADES
from koa_hf.imaging import phantom

if TYPE_CHECKING:
    from koa_hf.data.verify import Verification

MOST_PROBLEMS = 20  # more than these are for a file, not for a screen


def define_dataset(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa dataset`."""
    describe(
        parser,
        "Package the public knee X-ray release as a Hugging Face data set, or check it.",
        "koa dataset build kneeKL224.zip data/knees",
        "koa dataset verify data/knees",
    )
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    build = verbs.add_parser("build", help="write the release as Parquet shards with a card")
    describe(
        build,
        "Write a folder that datasets.load_dataset loads and that `koa push dataset` publishes as it is.",
        "koa dataset build kneeKL224.zip data/knees",
    )
    build.add_argument("source", metavar="SOURCE", type=Path, help="the release: its folder or its zip")
    build.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    build.add_argument("--overwrite", action="store_true", help="replace OUT if it is a data set built before")
    build.set_defaults(run=run_build)

    verify = verbs.add_parser("verify", help="check a release, or a data set built from it")
    describe(
        verify,
        "Decode every image, count grades and patients, and look for patients in two splits, duplicates and\n"
        "photographic negatives. The exit code is 2 if there is a problem.",
        "koa dataset verify data/knees --json verification.json",
    )
    verify.add_argument(
        "source", metavar="SOURCE", type=Path, help="a release (folder or zip), or a folder written by `build`"
    )
    verify.add_argument("--json", metavar="FILE", type=Path, help="write everything that was found to FILE")
    verify.set_defaults(run=run_verify)


def define_phantom(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa phantom`."""
    describe(
        parser,
        "Write a folder of drawn knee X-rays with the layout of the public release.",
        "koa phantom phantoms --patients 60 --seed 0",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write; must not exist, or be empty")
    parser.add_argument(
        "--patients", type=int, default=60, help="number of patients, two knees each, split 7:1:2 (default: 60)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other patients (default: 0)")
    parser.add_argument("--auto-test", action="store_true", help="also write auto_test, the test knees reframed")
    parser.set_defaults(run=run_phantom)


# `datasets` takes more than a second to import, which `--help` should not pay for: the two commands below import it.


def run_build(args: argparse.Namespace) -> None:
    from koa_hf.data.build import build_dataset
    from koa_hf.data.shards import check_shards

    build_dataset(args.source, args.out, args.overwrite, progress=True)
    rows, _ = check_shards(args.out)
    print(f"{args.out}: {rows} images; load with datasets.load_dataset({str(args.out)!r})")


def run_verify(args: argparse.Namespace) -> int:
    from koa_hf.data.verify import verify, write_verification

    if args.json:
        check_output(args.json)
    verification = verify(args.source, progress=True)
    print_verification(verification)
    if args.json:
        write_verification(verification, args.json)
    return 0 if verification.ok else 2


def run_phantom(args: argparse.Namespace) -> None:
    phantom.write_release(args.out, args.patients, args.seed, auto_test=args.auto_test)
    print(f"{args.out}: {len(list(args.out.rglob('*.png')))} drawn knees of {args.patients} patients")


def print_verification(found: "Verification") -> None:
    """Print a table of the splits, then notes and problems."""
    console = Console()
    console.print(found.source, style="bold", markup=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, show_edge=False, pad_edge=False)
    table.add_column("split", no_wrap=True)
    for heading in (*(f"KL {grade.value}" for grade in GRADES), "images", "release", "patients", "negative"):
        table.add_column(heading, justify="right", no_wrap=True)
    for split, counts in found.counts.items():
        negatives = len(found.negatives.get(split, ()))
        cells = [*counts, sum(counts), found.released(split), found.patients[split], negatives]
        table.add_row(split, *map(str, cells))
    console.print(table)
    for image_format, number in found.formats.items():
        console.print(f"{number} images of {image_format}", markup=False)
    for note in found.notes:
        console.print(note, markup=False)
    for problem in found.problems[:MOST_PROBLEMS]:
        console.print(f"problem: {problem}", style="red", markup=False)
    if len(found.problems) > MOST_PROBLEMS:
        more = len(found.problems) - MOST_PROBLEMS
        console.print(f"... and {more} more problems (--json lists them all)", style="red")
    console.print("no problems" if found.ok else f"{len(found.problems)} problem(s)", style="bold")
