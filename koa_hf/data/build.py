"""The public knee X-ray release -> a Hugging Face data set; and a check of either.

    python -m koa_hf.data.build build kneeKL224.zip data/knees
    python -m koa_hf.data.build verify data/knees

`build` takes the release as people have it: its zip, or the folder it was extracted to, complete or with some splits
only. It writes a folder that `datasets.load_dataset` loads and that can be uploaded to the Hub as it is: Parquet
shards that hold the original PNG bytes, and a card. `auto_test` shows patients of `test` a second time, so it becomes
a configuration of its own that nobody trains on by accident.
"""

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from koa_hf.data import dataset_card
from koa_hf.data.release import AUTO_TEST, Release
from koa_hf.data.shards import check_shards, is_built, write_split
from koa_hf.data.verify import print_report, verify, write_report
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.progress import progress_bar


def build(source: str | Path, out: str | Path, overwrite: bool = False, progress: bool = False) -> Path:
    """Make a Hugging Face data set of the release.

    Args:
        source: folder or zip of the release; see the module's docstring.
        out: folder to write. It appears when it is complete, or not at all. The same source gives the same bytes.
        overwrite: replace `out` where it is a data set built before.
        progress: show a progress bar on stderr.

    Returns:
        `out`: `data/<split>-*.parquet`, `auto_test/test-*.parquet` where the source has it, and `README.md`.

    Raises:
        KoaError: anything amiss with source or out. Every image is decoded, so a file cut short is found here.
    """
    source, out = Path(source), Path(out)
    _check_out(source, out, overwrite)
    with Release(source) as release:
        knees, problems = release.scan()
        if problems:
            more = len(problems) - 1
            raise KoaError(problems[0] + (f" (And {more} more: see `koa_hf.data.build verify`.)" if more else ""))
        if not any(knee.split != AUTO_TEST for knee in knees):
            raise KoaError(
                f"{source} holds {AUTO_TEST} only, which is not a data set by itself; add train, val or test."
            )
        scratch = out.parent / f".{out.name}.{os.getpid()}"
        try:
            scratch.mkdir(parents=True)
            with progress_bar("packing", len(knees), progress) as advance:
                splits = {
                    split: write_split(release, [knee for knee in knees if knee.split == split], scratch, advance)
                    for split in dict.fromkeys(knee.split for knee in knees)
                }
            dataset_card.render(knees, splits, scratch).save(scratch / "README.md")
            _put_in_place(scratch, out)
        except OSError as error:
            raise KoaError(f"{out} can't be written: {error.strerror or error}.") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return out


def _check_out(source: Path, out: Path, overwrite: bool) -> None:
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise KoaError(f"{out} lies within the release; name a folder outside {source}.")
    if not out.exists():
        return
    if not out.is_dir():
        raise KoaError(f"{out} is a file; name a folder.")
    if any(out.iterdir()):
        if not overwrite:
            raise KoaError(f"{out} exists and is not empty; name another folder, or give --overwrite.")
        if not is_built(out):
            raise KoaError(f"{out} is not a data set built before, so it is not overwritten; name another folder.")


def _put_in_place(scratch: Path, out: Path) -> None:
    if out.exists():
        old = scratch.with_suffix(".old")
        out.rename(old)
        try:
            scratch.rename(out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old)
    else:
        scratch.rename(out)


@exit_2_on_bad_input
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m koa_hf.data.build",
        description="Package the public knee X-ray release as a Hugging Face data set, or check it.",
        epilog="example: python -m koa_hf.data.build build kneeKL224.zip data/knees",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    builder = verbs.add_parser(
        "build",
        help="release -> Parquet and card",
        description="Write a folder that datasets.load_dataset loads and that can be uploaded to the Hub as it is.",
        epilog="example: python -m koa_hf.data.build build kneeKL224.zip data/knees",
    )
    builder.add_argument("source", metavar="SOURCE", type=Path, help="the release: its folder or its zip")
    builder.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    builder.add_argument("--overwrite", action="store_true", help="replace OUT where it is a data set built before")
    checker = verbs.add_parser(
        "verify",
        help="check a release or what build made of it",
        description="Check every image: readable, counts, patients disjoint, duplicates, negatives. "
        "Exits 2 where something is wrong.",
        epilog="example: python -m koa_hf.data.build verify data/knees --json report.json",
    )
    checker.add_argument("source", metavar="SOURCE_OR_OUT", type=Path, help="a release, or a folder that build wrote")
    checker.add_argument("--json", metavar="FILE", type=Path, help="write the whole report here")
    args = parser.parse_args(arguments)

    if args.verb == "build":
        build(args.source, args.out, args.overwrite, progress=True)
        rows, _ = check_shards(args.out)
        print(f"{args.out}: {rows} images; load with datasets.load_dataset({str(args.out)!r})")
        return 0
    report = verify(args.source, progress=True)
    print_report(report)
    if args.json:
        write_report(report, args.json)
    return 0 if report.ok else 2


if __name__ == "__main__":
    raise SystemExit(main())
