"""`koa cohort build`, `koa cohort grade` and `koa cohort report`: tens of thousands of films."""

import argparse
import os
import secrets
import sys
import time
from pathlib import Path

from koa_hf.cli.options import add_model_options, check_input, check_output, describe, load_grader
from koa_hf.cohort import BATCH_SIZE, FILMS_PER_SHARD, REPEATS, SECONDS
from koa_hf.errors import KoaError

BUILD = """\
List the films of a folder, searched all the way down, in a data set with one row a film: DICOM files with any name or
none, images, and zips of them. Files that are no film to be graded, such as lateral views, are in left_out.csv with the
reason. Patient and study become salted hashes unless --keep-ids is given."""

GRADE = """\
Grade the films of a data set; OUT becomes a data set with one row a knee. A film that can't be read is a row with the
error. After an interruption the same command goes on where it was. Under `accelerate launch`, on one machine or
several that share OUT, each process grades its share of the data set's files."""

REPORT = """\
Sum up the results of a cohort: grades by side, agreement of the two knees of a patient, films that failed by reason,
and agreement with readers' grades, with 95 % intervals by patient. Repeated films are left out."""


def define_cohort(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa cohort`."""
    describe(
        parser,
        "Grade a cohort: tens of thousands of films, in one process or many.",
        "koa cohort build archive/ data/films",
        "koa cohort grade data/films data/grades",
    )
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    build = verbs.add_parser("build", help="list the films of a folder in a data set")
    describe(
        build,
        BUILD,
        "koa cohort build archive/ data/films",
        "koa cohort build archive/ data/films --embed --salt secret.salt",
    )
    build.add_argument("source", metavar="SOURCE", type=Path, help="folder of DICOM studies, images and zips")
    build.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    build.add_argument("--embed", action="store_true", help="store the files themselves, not their paths")
    build.add_argument("--keep-ids", action="store_true", help="keep Patient ID and Study Instance UID as they are")
    build.add_argument(
        "--salt", metavar="FILE", type=Path, help="secret of the hashes, made if missing: cohorts with it share them"
    )
    build.add_argument(
        "--films-per-shard",
        type=int,
        default=FILMS_PER_SHARD,
        metavar="N",
        help="films of one Parquet file (default: %(default)s)",
    )
    build.add_argument("--overwrite", action="store_true", help="replace OUT if it is a data set built before")
    build.set_defaults(run=run_build)

    grade = verbs.add_parser("grade", help="grade the films of a data set, alone or under `accelerate launch`")
    describe(
        grade,
        GRADE,
        "koa cohort grade data/films data/grades",
        "koa cohort grade user/films data/grades --split train --model user/koa-xception",
        "accelerate launch --multi_gpu --num_processes 4 -m koa_hf cohort grade data/films data/grades",
    )
    grade.add_argument("films", metavar="DATASET_OR_ID", help="written by `koa cohort build`, or a data set of images")
    grade.add_argument("out", metavar="OUT", type=Path, help="folder of the results")
    grade.add_argument("--split", metavar="NAME", help="split of the data set (default: the only one)")
    grade.add_argument(
        "--dataset-revision", metavar="REVISION", help="branch, tag or commit of the data set on the Hub"
    )
    add_model_options(grade)
    grade.add_argument("--whole", action="store_true", help="grade each image as a whole, without finding knees in it")
    grade.add_argument("--workers", type=int, metavar="N", help="processes that read films (default: a core each)")
    grade.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE, metavar="N", help="knees at a time (default: %(default)s)"
    )
    grade.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="S", help="longest time to read a film (default: %(default)s)"
    )
    grade.set_defaults(run=run_grade)

    report = verbs.add_parser("report", help="sum up the results: a page with plots, and JSON")
    describe(
        report,
        REPORT,
        "koa cohort report data/grades",
        "koa cohort report data/grades --readers kl_{side} --html cohort.html",
    )
    report.add_argument("folder", metavar="OUT", type=Path, help="written by `koa cohort grade`, also in part")
    report.add_argument(
        "--readers",
        metavar="COLUMN",
        help="column of readers' grades; kl_{side} for the two columns kl_right and kl_left (default: label, if there)",
    )
    report.add_argument("--html", metavar="FILE", type=Path, help="page to write (default: report.html in OUT)")
    report.add_argument("--json", metavar="FILE", type=Path, help="figures to write (default: report.json in OUT)")
    report.add_argument(
        "--repeats",
        type=int,
        default=REPEATS,
        metavar="N",
        help="bootstrap samples of the intervals (default: %(default)s)",
    )
    report.set_defaults(run=run_report)


def run_build(args: argparse.Namespace) -> None:
    check_input(args.source)
    if args.films_per_shard < 1:
        raise KoaError("--films-per-shard must be at least 1.")
    # Imported here: `datasets` takes more than a second, which `--help` or a bad path should not cost.
    from koa_hf.cohort.build import LEFT_OUT, build_cohort

    options = {name: getattr(args, name) for name in ("embed", "keep_ids", "overwrite", "films_per_shard")}
    salt = read_salt(args.salt) if args.salt else None
    built = build_cohort(args.source, args.out, salt=salt, progress=True, **options)
    print(f"{args.out}: {built.films} films, {built.duplicates} of them duplicates")
    if built.left_out:
        print(f"{built.left_out} other files; {args.out / LEFT_OUT} gives the reasons", file=sys.stderr)


def run_grade(args: argparse.Namespace) -> None:
    if min(args.batch_size, args.seconds, 1 if args.workers is None else args.workers) <= 0:
        raise KoaError("--batch-size, --seconds and --workers must be more than 0.")
    # Imported here, as above; torch takes seconds, too.
    from accelerate import PartialState

    from koa_hf.cohort.films import Films
    from koa_hf.cohort.grade import grade_cohort

    state = PartialState(cpu=args.device == "cpu")
    if state.num_processes > 1:
        args.device = args.device or str(state.device)  # of several GPUs, each process has its own
    films = Films(args.films, args.split, args.dataset_revision)
    if films.shards < state.num_processes and state.is_main_process:
        idle = f"{state.num_processes - films.shards} of {state.num_processes} processes have"
        print(f"{idle} nothing to do: {args.films} is in {films.shards} files (see --films-per-shard)", file=sys.stderr)
    grader = load_grader(args)
    began = time.perf_counter()
    results, counts = grade_cohort(
        grader,
        films,
        args.out,
        about={"engine": grader.engine, "precision": grader.precision},
        whole=args.whole,
        process=state.process_index,
        processes=state.num_processes,
        workers=args.workers,
        batch_size=args.batch_size,
        seconds=args.seconds,
        progress=state.is_local_main_process,
    )
    rate = counts.films / max(time.perf_counter() - began, 1e-9)
    who = f"process {state.process_index + 1} of {state.num_processes}: " if state.num_processes > 1 else ""
    failed = f", {counts.errors} could not be read" if counts.errors else ""
    print(f"{who}graded {counts.films} films, {counts.knees} knees, {rate:.3g} films/s{failed}", file=sys.stderr)
    missing = len(results.missing())
    what = f"{results.shards - missing} of {results.shards} files are there" if missing else "all films are graded"
    print(f"{args.out}: {what}", flush=True)
    state.destroy_process_group()


def run_report(args: argparse.Namespace) -> None:
    check_input(args.folder)
    for path in filter(None, (args.html, args.json)):
        check_output(path)
    if args.repeats < 1:
        raise KoaError("--repeats must be at least 1.")
    # Imported here, as above.
    from koa_hf.cohort.report import summary, write

    figures = summary(args.folder, args.readers, args.repeats)
    write(args.folder, figures, args.html, args.json)
    failed = figures["failed"]["films"]
    page = args.html or args.folder / "report.html"
    print(f"{page}: {figures['films']} films, {figures['knees']} knees, {failed} films that failed")


def read_salt(path: Path) -> bytes:
    """The secret in a file, which is made, for its owner only, if it does not exist.

    Raises:
        KoaError: it can't be read or made, or is too short to be one.
    """
    try:
        if not path.exists():
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(opened, "w") as file:
                file.write(secrets.token_hex(32) + "\n")
        salt = path.read_bytes().strip()
    except OSError as error:
        raise KoaError(f"{path} can't be read or written: {error.strerror or error}.") from error
    if len(salt) < 16:
        raise KoaError(f"{path} holds fewer than 16 characters, too few for a secret; delete it to have one made.")
    return salt
