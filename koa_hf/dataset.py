"""The public knee X-ray release -> a Hugging Face data set; and a check of either.

    python -m koa_hf.dataset build kneeKL224.zip data/knees
    python -m koa_hf.dataset verify data/knees

`build` takes the release as people have it: its zip, or the folder it was extracted to, complete or with some splits
only. It writes a folder that `datasets.load_dataset` loads and that can be uploaded to the Hub as it is: Parquet
shards that hold the original PNG bytes, and a card. `auto_test` shows patients of `test` a second time, so it becomes
a configuration of its own that nobody trains on by accident.
"""

import argparse
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import datasets
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx  # whichever client the library uses: its errors are the ones to catch

from koa_hf import dataset_card, dataset_hub
from koa_hf.dataset_shards import check_columns, check_shards, first_line, is_built, write_split
from koa_hf.dataset_verify import print_report, verify, write_report
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.progress import progress_bar
from koa_hf.release import AUTO_TEST, Release, is_release


def load(path_or_id: str | Path, configuration: str = "default", revision: str | None = None) -> datasets.DatasetDict:
    """Load a built data set.

    Args:
        path_or_id: a folder that `build` wrote, or the id of a data set on the Hub.
        configuration: `default` (train, validation, test), or `auto_test` by name.
        revision: branch, tag or commit on the Hub; nothing for a folder. `dataset_hub.commit_of` says what it was.

    Returns:
        The splits that are there, with the columns of `dataset_shards.FEATURES`.

    Raises:
        KoaError: nothing there, the release itself instead of what `build` makes of it, no network, an unknown
            configuration, or columns missing.
    """
    path = Path(path_or_id)
    if path.exists():
        check_built(path)
        # An absolute path can't be taken for a Hub id, nor for one of the loaders that `datasets` has by name.
        path_or_id = str(path.resolve())
    elif path.is_absolute() or str(path_or_id).startswith((".", "~")) or len(path.parts) > 2:
        raise KoaError(f"{path_or_id} doesn't exist; give a folder written by `python -m koa_hf.dataset build`.")
    name = str(path if path.exists() else path_or_id)
    try:
        if path.exists():
            loaded = datasets.load_dataset(path_or_id, configuration)
        else:
            loaded = dataset_hub.load(str(path_or_id), configuration, revision)
    except (ConnectionError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise KoaError(
            f"{name} is no folder here, and the Hugging Face Hub can't be reached to look for it there, or the "
            "connection broke; check the path, or the network (and that HF_HUB_OFFLINE is not set)."
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise KoaError(
            f"{name} is neither a folder here nor a data set on the Hugging Face Hub that you may read"
            f"{f' at revision {revision}' if revision else ''}; check the spelling, or log in with `hf auth login`."
        ) from error
    except (FileNotFoundError, HFValidationError, HfHubHTTPError) as error:
        raise KoaError(f"{name} can't be loaded: {first_line(error)}") from error
    except datasets.exceptions.DatasetsError as error:
        raise KoaError(
            f"{name} is damaged ({first_line(error.__cause__ or error)}); build or download it again."
        ) from error
    except ValueError as error:
        if "BuilderConfig" not in str(error):
            raise
        raise KoaError(f"{name} has no configuration {configuration!r}; its card lists those it has.") from error
    for split, part in loaded.items():
        check_columns(part.column_names, f"split {split!r} of {name}")
    return loaded


def dataset_fingerprint(dataset: datasets.Dataset) -> str:
    """SHA-256 (hex) over file name, label and image bytes of every row, in order.

    Unlike the fingerprint `datasets` keeps, it depends on nothing but the data: not on the path, the machine, or
    the version that wrote the Parquet. Nothing is decoded; the full training split takes about a second.
    """
    digest = hashlib.sha256()
    columns = ["file_name", "label", "image"]
    undecoded = dataset.select_columns(columns).cast_column("image", datasets.Image(decode=False))
    for batch in undecoded.iter(batch_size=256):
        for file_name, label, image in zip(*(batch[column] for column in columns), strict=True):
            data = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
            # Lengths first, so that no two different lists of rows run together into the same bytes.
            digest.update(f"{len(file_name)} {file_name} {label} {len(data)} ".encode())
            digest.update(data)
    return digest.hexdigest()


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
            raise KoaError(problems[0] + (f" (And {more} more: see `koa_hf.dataset verify`.)" if more else ""))
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


def check_built(path: Path) -> None:
    """KoaError where `path` isn't a folder that `build` wrote."""
    if is_built(path):
        return
    if is_release(path):
        raise KoaError(
            f"{path} is the release itself; run `python -m koa_hf.dataset build {path} OUT` first, then give OUT."
        )
    raise KoaError(
        f"{path} holds no data set (no data/*.parquet); give a folder written by `python -m koa_hf.dataset build`."
    )


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
        prog="python -m koa_hf.dataset",
        description="Package the public knee X-ray release as a Hugging Face data set, or check it.",
        epilog="example: python -m koa_hf.dataset build kneeKL224.zip data/knees",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    builder = verbs.add_parser(
        "build",
        help="release -> Parquet and card",
        description="Write a folder that datasets.load_dataset loads and that can be uploaded to the Hub as it is.",
        epilog="example: python -m koa_hf.dataset build kneeKL224.zip data/knees",
    )
    builder.add_argument("source", metavar="SOURCE", type=Path, help="the release: its folder or its zip")
    builder.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    builder.add_argument("--overwrite", action="store_true", help="replace OUT where it is a data set built before")
    checker = verbs.add_parser(
        "verify",
        help="check a release or what build made of it",
        description="Check every image: readable, counts, patients disjoint, duplicates, negatives. "
        "Exits 2 where something is wrong.",
        epilog="example: python -m koa_hf.dataset verify data/knees --json report.json",
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
