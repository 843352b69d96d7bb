"""Grade many X-rays from the command line.

    python -m koa_hf.grade knee.png
    python -m koa_hf.grade xrays/ --csv grades.csv
    python -m koa_hf.grade xrays/ more/*.png --model user/koa-xception --revision main --json > grades.jsonl

Folders are searched all the way down. A file that can't be read is named at the end and doesn't stop the others; the
exit code is then 2. The CSV has one row a file: file, grade, name, p0 to p4, expected_grade, grade_low and grade_high
(the prediction set), familiar, inverted, error.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from koa_hf import radiograph
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grader import Grader, Grading, percent
from koa_hf.grades import NUM_GRADES, RESEARCH_USE_NOTICE
from koa_hf.precision import PRECISIONS
from koa_hf.report import as_row, csv_writer

BATCH_SIZE = 8  # on CPUs a larger batch gains nothing; on GPUs reading the files takes longer than grading them
LONGEST_TABLE = 30  # more results than this are for a CSV file, not for a screen


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Files as named, folders searched all the way down for X-rays; each file once, hidden ones left out.

    Raises:
        KoaError: a folder, or the whole selection, holds no X-ray.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = None  # one that isn't there is reported with the unreadable ones
            continue
        inside = [
            Path(folder, name)
            for folder, _, names in os.walk(path)
            for name in names
            if not name.startswith(".") and radiograph.is_radiograph_file(Path(folder, name))
        ]
        if not inside:
            raise KoaError(f"{path} holds no X-rays ({radiograph.FORMATS} files).")
        found.update(dict.fromkeys(sorted(inside)))
    return list(found)


def grade_files(grader: Grader, files: Sequence[Path]) -> Iterator[tuple[Path, Grading | str]]:
    """Each file with its grading, or with the sentence that says why there is none; in order."""
    for first in range(0, len(files), BATCH_SIZE):
        batch = files[first : first + BATCH_SIZE]
        read: dict[Path, radiograph.Radiograph] = {}
        errors: dict[Path, str] = {}
        for file in batch:
            try:
                read[file] = radiograph.read(file, name=str(file))
            except KoaError as error:
                errors[file] = str(error)
        gradings = dict(zip(read, grader.grade_batch(read.values()), strict=True))
        for file in batch:
            yield file, gradings.get(file) or errors[file]


def print_table(console: Console, outcomes: list[tuple[Path, Grading]]) -> None:
    table = Table("file", "grade", "range", "expected", *(f"KL {g}" for g in range(NUM_GRADES)), "remarks")
    for column in table.columns[1:-1]:
        column.no_wrap = True
    for column in table.columns[3:-1]:
        column.justify = "right"
    for file, grading in outcomes:
        low, high = grading.grade_set or (None, None)
        # Text: rich would take [brackets] in a file name for markup.
        table.add_row(
            Text(str(file), overflow="fold"),
            f"KL {grading.grade} {grading.name}",
            "" if low is None else f"{low}" if low == high else f"{low} to {high}",
            f"{grading.expected_grade:.1f}",
            *(percent(p) for p in grading.probabilities),
            "; ".join(remarks(grading)),
        )
    console.print(table)


def remarks(grading: Grading) -> list[str]:
    """What has to be known before the grade is believed, in a few words each."""
    found = []
    if grading.familiar is False:
        found.append("unlike the training knees")
    if grading.inverted:
        found.append("a negative, righted")
    return found


@exit_2_on_bad_input
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m koa_hf.grade", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--model", help="model folder or Hub id; by default KOA_MODEL, else the bundled model")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, ...; by default a GPU where there is one")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: %(default)s")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--json", action="store_true", help="print one JSON object a file instead of a table")
    options = parser.parse_args(arguments)

    files = find_files(options.paths)
    # Results go to stdout, everything about how it is going to stderr, so that a pipe gets the results alone.
    console, progress_console = Console(), Console(stderr=True)
    progress = Progress(
        TextColumn("grading"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=progress_console,
        redirect_stdout=sys.stdout.isatty(),  # into a pipe, JSON must not pass through the progress bar
    )
    graded, failed, total = [], [], 0
    with csv_writer(options.csv) as writer:  # before the model is loaded: a bad path shouldn't cost that wait
        grader = Grader.from_pretrained(options.model, options.revision, options.device, options.precision)
        with progress:
            for file, outcome in progress.track(grade_files(grader, files), total=len(files)):
                if writer:
                    writer.writerow(as_row(file, outcome))
                if isinstance(outcome, str):
                    failed.append(outcome)
                    record = {"file": str(file), "error": outcome}
                else:
                    total += 1
                    record = {"file": str(file), **outcome.to_dict()}
                    del record["source"]  # the same
                    if len(files) <= LONGEST_TABLE:
                        graded.append((file, outcome))
                if options.json:
                    print(json.dumps(record), flush=True)
    if graded and not options.json:
        print_table(console, graded)
    where = f"; results in {options.csv}" if options.csv else ""
    print(f"graded {total} of {len(files)} with {grader.model_id}, version {grader.revision}{where}", file=sys.stderr)
    for remark in filter(None, (grader.note, RESEARCH_USE_NOTICE)):
        print(remark, file=sys.stderr)
    for sentence in failed:
        print(f"not graded: {sentence}", file=sys.stderr)
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
