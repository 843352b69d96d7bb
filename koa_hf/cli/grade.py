"""Grade many X-rays from the command line.

    python -m koa_hf.cli.grade knee.png
    python -m koa_hf.cli.grade xrays/ --csv grades.csv
    python -m koa_hf.cli.grade xrays/ more/*.png --model user/koa-xception --revision main --json > grades.jsonl

Folders are searched all the way down. A file that can't be read is named at the end and doesn't stop the others; the
exit code is then 2. Knees are looked for on larger films, and each that is found is cut out and graded by itself.
The CSV has one row a knee, the JSON one object a knee, with the same fields.
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

from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grades import NUM_GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading.examination import examine
from koa_hf.grading.grader import Grader
from koa_hf.grading.result import Grading, KneeGrader, NotGraded, percent
from koa_hf.imaging import radiograph
from koa_hf.network.engine_names import ENGINE_HELP, ENGINES, GRADER_PRECISIONS
from koa_hf.report.csv_table import COLUMNS, csv_writer, row_of

BATCH_SIZE = 8  # on CPUs a larger batch gains nothing; on GPUs reading the files takes longer than grading them
LONGEST_TABLE = 30  # more results than this are for a CSV file, not for a screen
ROOM_FOR_PROBABILITIES = 105  # columns of a terminal


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


def grade_files(grader: KneeGrader, files: Sequence[Path], whole: bool = False) -> Iterator[list[Grading | NotGraded]]:
    """Each file's gradings, one a knee, or why there is none; in order.

    `whole` grades every image as it is, without looking for knees in it.
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
    # A terminal of the usual 80 columns has no room for the probabilities beside a file's name.
    shown = range(NUM_GRADES) if console.width >= ROOM_FOR_PROBABILITIES else ()
    table = Table("file", "grade", "range", "expected", *(f"KL {g}" for g in shown), "remarks")
    for column in table.columns[1:-1]:
        column.no_wrap = True
    for column in table.columns[3:-1]:
        column.justify = "right"
    for grading in gradings:
        knee = f", {f'{grading.side} knee' if grading.side else 'a knee'}" if grading.box else ""
        low, high = grading.grade_set or (None, None)
        # Text: rich would take [brackets] in a file name for markup.
        table.add_row(
            Text(f"{grading.file}{knee}", overflow="fold"),
            f"KL {grading.grade} {grading.name}",
            "" if low is None else f"{low}" if low == high else f"{low} to {high}",
            f"{grading.expected_grade:.1f}",
            *(percent(grading.probabilities[g]) for g in shown),
            "; ".join(grading.remarks),
        )
    console.print(table)


def _columns() -> str:
    """Documentation of the CSV."""
    return "columns of the CSV:\n" + "\n".join(f"  {column}: {text}" for column, text in COLUMNS.items())


@exit_2_on_bad_input
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m koa_hf.cli.grade",
        description=__doc__,
        epilog=_columns(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--model", help="model folder or Hub id; by default KOA_MODEL, else the bundled model")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, ...; by default a GPU where there is one")
    parser.add_argument("--precision", choices=GRADER_PRECISIONS, default="fp32", help="default: %(default)s")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help=ENGINE_HELP)
    parser.add_argument("--whole", action="store_true", help="grade each image as it is; don't look for knees in it")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--json", action="store_true", help="print one JSON object a knee instead of a table")
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
    graded, failed, knees = [], [], 0
    with csv_writer(options.csv) as writer:  # before the model is loaded: a bad path shouldn't cost that wait
        grader = Grader.from_pretrained(
            options.model, options.revision, options.device, options.precision, engine=options.engine
        )
        with progress:
            for outcomes in progress.track(grade_files(grader, files, options.whole), total=len(files)):
                failed += [one for one in outcomes if isinstance(one, NotGraded)]
                found = [one for one in outcomes if isinstance(one, Grading)]
                knees += len(found)
                if len(files) <= LONGEST_TABLE:
                    graded += found
                for outcome in outcomes if writer else ():
                    writer.writerow(row_of(outcome))
                for outcome in outcomes if options.json else ():
                    print(json.dumps(outcome.to_dict()), flush=True)
    if graded and not options.json:
        print_table(console, graded)
    where = f"; results in {options.csv}" if options.csv else ""
    done = len(files) - len(failed)
    what = f"{done} of {len(files)}" + (f" ({knees} knees)" if knees != done else "")
    how = f"{grader.model_id}, version {grader.revision}, computed by {grader.engine}"
    print(f"graded {what} with {how}{where}", file=sys.stderr)
    for remark in filter(None, (grader.note, RESEARCH_USE_NOTICE)):
        print(remark, file=sys.stderr)
    for one in failed:
        print(f"not graded: {one.error}", file=sys.stderr)
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
