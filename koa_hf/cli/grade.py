"""`koa grade`: grade many radiographs, to a table, CSV or JSON."""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from koa_hf.cli.options import (
    add_model_options,
    check_input,
    check_output,
    describe,
    load_grader,
    make_folder,
    write_output,
)
from koa_hf.errors import KoaError
from koa_hf.grades import NUM_GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading.examination import Examination, examine
from koa_hf.grading.result import Grading, KneeGrader, NotGraded, percent
from koa_hf.imaging import archive, radiograph
from koa_hf.progress import ProgressBar
from koa_hf.report import evidence
from koa_hf.report.csv_table import COLUMNS, csv_writer, row_of
from koa_hf.report.document import Report

BATCH_SIZE = 8  # files read before they are graded together; more gains nothing, on CPUs or GPUs
LONGEST_TABLE = 30  # files; results of more are for a CSV file, not for a screen
ROOM_FOR_PROBABILITIES = 105  # columns of a terminal

GRADE = """\
Grade knee radiographs. Folders are searched recursively, and zips opened. The knees on a larger film are found, and
each is graded separately. A file that can't be read is named at the end and does not stop the others; the exit code is
then 2. The CSV has one row per knee, the JSON one object per knee, with the same fields."""


def define_grade(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa grade`."""
    describe(
        parser,
        GRADE,
        "koa grade knee.png",
        "koa grade xrays/ --csv grades.csv",
        "koa grade xrays.zip --csv grades.csv",
        "koa grade xrays/ --heatmaps heatmaps/ --reports reports/",
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
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER", help="radiographs, or folders or zips of them"
    )
    add_model_options(parser)
    parser.add_argument("--whole", action="store_true", help="grade each image as a whole, without finding knees in it")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results to FILE")
    parser.add_argument("--heatmaps", type=Path, metavar="DIR", help="write the heat maps of each file to DIR, as PNG")
    parser.add_argument("--reports", type=Path, metavar="DIR", help="write a report on each file to DIR, as PDF")
    parser.add_argument("--json", action="store_true", help="print one JSON object per knee instead of a table")
    parser.set_defaults(run=run_grade)


def run_grade(args: argparse.Namespace) -> int:
    files = find_files(args.paths)
    total = sum(map(archive.count, files))
    if args.csv:
        check_output(args.csv)
    for folder in filter(None, (args.heatmaps, args.reports)):
        make_folder(folder)
    graded, failed, knees = [], [], 0
    # Opened before the model is loaded: a path that can't be written should not cost that wait.
    with csv_writer(args.csv) as writer:
        grader = load_grader(args)
        graded_files = grade_files(grader, files, args.whole, partial(save, args))
        progress = ProgressBar(graded_files, "grading", total=total, unit="file")
        for outcomes in progress:
            failed += [one for one in outcomes if isinstance(one, NotGraded)]
            found = [one for one in outcomes if isinstance(one, Grading)]
            knees += len(found)
            if total <= LONGEST_TABLE:
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
    done = total - len(failed)
    what = f"{done} of {total}" + (f" ({knees} knees)" if knees != done else "")
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


def save(args: argparse.Namespace, examination: Examination) -> None:
    """Write the heat maps and the report of a film where the options of `koa grade` ask for them.

    Files are named after the film's, and the first digits of its SHA-256, as films of two folders may share a name.

    Raises:
        KoaError: they can't be written.
    """
    film = examination.film
    name = f"{Path(film.name).stem}-{(film.sha256 or '')[:8]}"
    made = {}
    if args.heatmaps:
        made[args.heatmaps / f"{name}.png"] = evidence.png(examination.knees)
    if args.reports:
        # Imported here: matplotlib takes a second, which the other options should not cost.
        from koa_hf.report import pdf_page

        made[args.reports / f"{name}.pdf"] = pdf_page.pdf(*(Report(knee, film) for knee in examination.knees))
    for path, content in made.items():
        write_output(path, content)


def grade_files(
    grader: KneeGrader,
    files: Sequence[Path],
    whole: bool = False,
    examined: Callable[[Examination], object] = lambda examination: None,
) -> Iterator[list[Grading | NotGraded]]:
    """Yield the outcomes of each X-ray, in order: a grading per knee, or the error. Zips are opened.

    Args:
        whole: grade every image as a whole, without finding knees in it.
        examined: called with each examination.
    """
    sources = _sources(files)
    while batch := list(itertools.islice(sources, BATCH_SIZE)):
        films: list[radiograph.Radiograph | NotGraded] = []
        for name, source in batch:
            try:
                if isinstance(source, KoaError):
                    raise source
                films.append(radiograph.read(source, name=name))
            except KoaError as error:
                films.append(NotGraded(file=name, error=str(error)))
        read = [film for film in films if not isinstance(film, NotGraded)]
        examinations = examine(grader, read, as_it_is=whole)
        for examination in examinations:
            examined(examination)
        in_order = iter(examinations)
        for film in films:
            yield [film] if isinstance(film, NotGraded) else [knee.grading for knee in next(in_order).knees]


def _sources(files: Iterable[Path]) -> Iterator[tuple[str, Path | bytes | KoaError]]:
    """Each X-ray's name and where to read it from; those in a zip with its name before theirs."""
    for file in files:
        try:
            if archive.is_archive(file):
                for name, content in archive.unpack(file, str(file)):
                    yield f"{file}/{name}", content
            else:
                yield str(file), file
        except KoaError as error:
            yield str(file), error
        except OSError:  # for `radiograph.read` to say
            yield str(file), file


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
            " · ".join(grading.remarks),
        )
    console.print(table)
