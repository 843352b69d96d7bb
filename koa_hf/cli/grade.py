"""`koa grade`: grade many radiographs, to a table, CSV or JSON."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from koa_hf.cli.options import add_model_options, check_input, check_output, describe, load_grader
from koa_hf.errors import KoaError
from koa_hf.grades import NUM_GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading.examination import examine
from koa_hf.grading.result import Grading, KneeGrader, NotGraded, percent
from koa_hf.imaging import radiograph
from koa_hf.progress import ProgressBar
from koa_hf.report.csv_table import COLUMNS, csv_writer, row_of

BATCH_SIZE = 8  # files read before they are graded together; more gains nothing, on CPUs or GPUs
LONGEST_TABLE = 30  # files; results of more are for a CSV file, not for a screen
ROOM_FOR_PROBABILITIES = 105  # columns of a terminal

GRADE = """\
Grade knee radiographs. Folders are searched recursively. The knees on a larger film are found, and each is graded
separately. A file that can't be read is named at the end and does not stop the others; the exit code is then 2.
The CSV has one row per knee, the JSON one object per knee, with the same fields."""


def define_grade(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa grade`."""
    describe(
        parser,
        GRADE,
        "koa grade knee.png",
        "koa grade xrays/ --csv grades.csv",
        "koa grade xrays/ more/*.png --model user/koa-xception --revision main --json > grades.jsonl",
    )
    parser.epilog = "\n".join(
        [
            parser.epilog or "",
            "",
            "columns of the CSV (an empty cell stands for null):",
            *(f"  {column}: {text}" for column, text in COLUMNS.items()),
        ]
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER", help="radiographs, or folders of them")
    add_model_options(parser)
    parser.add_argument("--whole", action="store_true", help="grade each image as a whole, without finding knees in it")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results to FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON object per knee instead of a table")
    parser.set_defaults(run=run_grade)


def run_grade(args: argparse.Namespace) -> int:
    files = find_files(args.paths)
    if args.csv:
        check_output(args.csv)
    graded, failed, knees = [], [], 0
    # Opened before the model is loaded: a path that can't be written should not cost that wait.
    with csv_writer(args.csv) as writer:
        grader = load_grader(args)
        progress = ProgressBar(grade_files(grader, files, args.whole), "grading", total=len(files), unit="file")
        for outcomes in progress:
            failed += [one for one in outcomes if isinstance(one, NotGraded)]
            found = [one for one in outcomes if isinstance(one, Grading)]
            knees += len(found)
            if len(files) <= LONGEST_TABLE:
                graded += found
            if writer:
                writer.writerows(map(row_of, outcomes))
            if args.json:
                progress.clear()
                for outcome in outcomes:
                    print(json.dumps(outcome.to_dict()), flush=True)
    if graded and not args.json:
        print_table(Console(), graded)

    # Results go to stdout and everything else to stderr, so that a pipe carries results only.
    where = f"; results in {args.csv}" if args.csv else ""
    done = len(files) - len(failed)
    what = f"{done} of {len(files)}" + (f" ({knees} knees)" if knees != done else "")
    how = f"{grader.model_id}, version {grader.revision}, computed by {grader.engine}"
    print(f"graded {what} with {how}{where}", file=sys.stderr)
    for remark in filter(None, (grader.note, RESEARCH_USE_NOTICE)):
        print(remark, file=sys.stderr)
    for one in failed:
        print(f"not graded: {one.error}", file=sys.stderr)
    return 2 if failed else 0


def find_files(paths: Iterable[Path]) -> list[Path]:
    """List the files named and the radiographs in folders, searched recursively; each file once, no hidden files.

    Raises:
        KoaError: a path does not exist, or a folder holds no radiograph.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            check_input(path)
            found[path] = None
            continue
        inside = [
            Path(folder, name)
            for folder, _, names in os.walk(path)
            for name in names
            if not name.startswith(".") and radiograph.is_radiograph_file(Path(folder, name))
        ]
        if not inside:
            raise KoaError(f"{path} holds no radiographs ({radiograph.FORMATS} files).")
        found.update(dict.fromkeys(sorted(inside)))
    return list(found)


def grade_files(grader: KneeGrader, files: Sequence[Path], whole: bool = False) -> Iterator[list[Grading | NotGraded]]:
    """Yield the outcomes of each file, in order: a grading per knee, or the error.

    Args:
        whole: grade every image as a whole, without finding knees in it.
    """
    for first in range(0, len(files), BATCH_SIZE):
        batch = files[first : first + BATCH_SIZE]
        films, errors = {}, {}
        for file in batch:
            try:
                films[file] = radiograph.read(file, name=str(file))
            except KoaError as error:
                errors[file] = NotGraded(file=str(file), error=str(error))
        examinations = dict(zip(films, examine(grader, list(films.values()), as_it_is=whole), strict=True))
        for file in batch:
            yield [errors[file]] if file in errors else [knee.grading for knee in examinations[file].knees]


def print_table(console: Console, gradings: Sequence[Grading]) -> None:
    """Print a row per knee, with the probabilities if the terminal is wide enough."""
    shown = range(NUM_GRADES) if console.width >= ROOM_FOR_PROBABILITIES else ()
    table = Table("file", "grade", "range", "expected", *(f"KL {g}" for g in shown), "remarks")
    for column in table.columns[1:-1]:
        column.no_wrap = True
    for column in table.columns[3:-1]:
        column.justify = "right"
    for grading in gradings:
        knee = f", {f'{grading.side} knee' if grading.side else 'a knee'}" if grading.box else ""
        low, high = grading.grade_set or (None, None)
        # Text, as rich would interpret [brackets] in a file name as markup.
        table.add_row(
            Text(f"{grading.file}{knee}", overflow="fold"),
            f"KL {grading.grade} {grading.name}",
            "" if low is None else f"{low}" if low == high else f"{low} to {high}",
            f"{grading.expected_grade:.1f}",
            *(percent(grading.probabilities[g]) for g in shown),
            "; ".join(grading.remarks),
        )
    console.print(table)
