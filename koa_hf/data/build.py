"""Build a Hugging Face data set from the public knee X-ray release.

The source is the release's zip, or the folder it was extracted to, with all splits or some. The result is a folder that
`datasets.load_dataset` loads and that goes to the Hub as it is: Parquet shards with the original PNG bytes, and a card.
`auto_test` shows the patients of `test` a second time, so it becomes a configuration of its own: nobody should train on
it by accident.
"""

import os
import shutil
from pathlib import Path

from koa_hf.data import dataset_card
from koa_hf.data.release import AUTO_TEST, Release
from koa_hf.data.shards import is_built, write_split
from koa_hf.errors import KoaError
from koa_hf.files import put_in_place
from koa_hf.progress import progress_bar


def build_dataset(source: str | Path, out: str | Path, overwrite: bool = False, progress: bool = False) -> Path:
    """Build a Hugging Face data set from the release.

    Args:
        source: folder or zip of the release.
        out: folder to write. It appears once it is complete, or not at all. The same source gives the same bytes.
        overwrite: replace `out` if it is a data set built before.
        progress: show a progress bar on stderr.

    Returns:
        `out`: `data/<split>-*.parquet`, `auto_test/test-*.parquet` if the source has it, and `README.md`.

    Raises:
        KoaError: a problem with source or out. Every image is decoded, so truncated files are found here.
    """
    source, out = Path(source), Path(out)
    check_out(source, out, overwrite)
    with Release(source) as release:
        images, problems = release.scan()
        if problems:
            more = len(problems) - 1
            raise KoaError(problems[0] + (f" (And {more} more: see `koa dataset verify`.)" if more else ""))
        if not any(image.split != AUTO_TEST for image in images):
            raise KoaError(
                f"{source} holds {AUTO_TEST} only, which is not a data set by itself; add train, val or test."
            )
        scratch = out.parent / f".{out.name}.{os.getpid()}"
        try:
            scratch.mkdir(parents=True)
            with progress_bar("packing", len(images), progress) as advance:
                splits = {
                    split: write_split(release, [image for image in images if image.split == split], scratch, advance)
                    for split in dict.fromkeys(image.split for image in images)
                }
            dataset_card.render(images, splits, scratch).save(scratch / "README.md")
            put_in_place(scratch, out)
        except OSError as error:
            raise KoaError(f"{out} can't be written: {error.strerror or error}.") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return out


def check_out(source: Path, out: Path, overwrite: bool) -> None:
    """Check that a data set can be built at `out`.

    Raises:
        KoaError: it lies within its source, or is there already and is not to be overwritten, or is something else.
    """
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise KoaError(f"{out} lies within {source}, which it is built from; name a folder outside of it.")
    if not out.exists():
        return
    if not out.is_dir():
        raise KoaError(f"{out} is a file; name a folder.")
    if any(out.iterdir()):
        if not overwrite:
            raise KoaError(f"{out} exists and is not empty; name another folder, or give --overwrite.")
        if not is_built(out):
            raise KoaError(f"{out} is not a data set built before, so it is not overwritten; name another folder.")
