"""`koa cohort build`: tens of thousands of films."""

import argparse
import os
import secrets
import sys
from pathlib import Path

from koa_hf.cli.options import check_input, describe
from koa_hf.errors import KoaError

BUILD = """\
List the films of a folder, searched all the way down, in a data set with one row a film: DICOM files with any name or
none, images, and zips of them. Files that are no film to be graded, such as lateral views, are in left_out.csv with the
reason. Patient and study become salted hashes unless --keep-ids is given."""


def define_cohort(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa cohort`."""
    describe(
        parser,
        "Grade a cohort: tens of thousands of films, in one process or many.",
        "koa cohort build archive/ data/films",
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
        "--films-per-shard", type=int, default=256, metavar="N", help="films of one Parquet file (default: %(default)s)"
    )
    build.add_argument("--overwrite", action="store_true", help="replace OUT if it is a data set built before")
    build.set_defaults(run=run_build)


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
