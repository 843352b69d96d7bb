"""Parquet shards of the data set, written from the release and read back.

data/<split>-00000-of-00003.parquet       train, validation, test
auto_test/test-00000-of-00001.parquet     a configuration of its own
"""

import contextlib
import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.info import DatasetInfosDict
from datasets.table import InMemoryTable

from koa_hf.data.release import AUTO_TEST, SPLIT_FOLDERS, Release, ReleaseImage, decode, is_release, release_image
from koa_hf.errors import KoaError
from koa_hf.grades import GRADE_NAMES

FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(GRADE_NAMES)),
        "patient_id": datasets.Value("string"),
        "side": datasets.Value("string"),
        "file_name": datasets.Value("string"),
    }
)
"""Columns of the data set: one row per image; `image` holds the bytes of the released PNG."""

IMAGES_PER_SHARD = 2000
"""About 50 MB of PNG, the most that `write_split` holds in memory."""


def is_built(path: Path) -> bool:
    """True if `path` is a folder with Parquet shards, as `build_dataset` writes."""
    return path.is_dir() and any(path.glob("data/*.parquet"))


def check_built(path: Path) -> None:
    """Raise KoaError unless `path` is a folder that `build_dataset` wrote."""
    if is_built(path):
        return
    if is_release(path):
        raise KoaError(f"{path} is the release itself; run `koa dataset build {path} OUT` first, then give OUT.")
    raise KoaError(f"{path} holds no data set (no data/*.parquet); give a folder written by `koa dataset build`.")


def write_split(
    release: Release, images: list[ReleaseImage], out: Path, advance: Callable[[], None]
) -> datasets.SplitInfo:
    """Write the shards of one split, one after another.

    Args:
        release: source of the files.
        images: all images of the split, in the order of the rows.
        out: the data set's folder.
        advance: called after every image.

    Returns:
        Name, bytes and rows of the split.

    Raises:
        KoaError: a file can't be read, or is not a whole PNG image.
        OSError: a shard can't be written.
    """
    split = "test" if images[0].split == AUTO_TEST else images[0].split
    folder = out / (AUTO_TEST if images[0].split == AUTO_TEST else "data")
    folder.mkdir(exist_ok=True)
    shards = -(-len(images) // IMAGES_PER_SHARD)
    num_bytes = 0
    for shard in range(shards):
        part = images[shard * len(images) // shards : (shard + 1) * len(images) // shards]
        num_bytes += _write_shard(release, part, folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet", advance)
        pa.default_memory_pool().release_unused()
    return datasets.SplitInfo(name=split, num_bytes=num_bytes, num_examples=len(images))


def _write_shard(release: Release, images: list[ReleaseImage], path: Path, advance: Callable[[], None]) -> int:
    """Write one Parquet file; the size in bytes of its rows in memory."""
    files = []
    for image in images:
        data = release.read(image.member)
        decode(data, image.member)
        files.append({"bytes": data, "path": image.file_name})
        advance()
    # Not Dataset.from_dict: its encoder drops the bytes if the working directory has a file of that name.
    columns = {"image": files}
    columns |= {name: [getattr(image, name) for image in images] for name in FEATURES if name != "image"}
    table = pa.table(columns, schema=FEATURES.arrow_schema)
    with _no_progress_bars():
        datasets.Dataset(InMemoryTable(table)).to_parquet(path)
    return table.nbytes


def read_shards(folder: Path) -> Iterator[tuple[ReleaseImage, Callable[[], bytes]]]:
    """Yield every row of a built data set, read in small batches: the image, and a function that returns its PNG."""
    for split, path in _shards(folder):
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=64, columns=list(FEATURES)):
                for row in batch.to_pylist():
                    data = row.pop("image")["bytes"] or b""
                    image = release_image(split=split, member=f"{split}/{row['file_name']}", **row)
                    yield image, functools.partial(bytes, data)


def check_shards(folder: Path) -> tuple[int, list[str]]:
    """Check that no shard is missing and that the rows are as many as the card states.

    Returns:
        (number of rows, problems in one sentence each).

    Raises:
        KoaError: a shard is misnamed, unreadable or lacks a column, so that its rows can't be read.
    """
    rows, seen, problems = Counter(), defaultdict(set), []
    for split, path in _shards(folder):
        try:
            parquet = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise KoaError(f"{path} is not a readable Parquet file ({first_line(error)}); build it again.") from error
        with parquet:
            check_columns(parquet.schema_arrow.names, str(path))
            rows[split] += parquet.metadata.num_rows
        match = re.fullmatch(r".*-(\d{5})-of-(\d{5})", path.stem)
        if match:
            seen[split, int(match[2])].add(int(match[1]))
    for (split, shards), there in seen.items():
        if missing := set(range(shards)) - there:
            problems.append(f"{split} lacks {len(missing)} of its {shards} Parquet files; build or download it again.")
    try:
        infos = DatasetInfosDict.from_directory(folder)
    except Exception as error:  # YAML, and datasets' checks of it, fail in many ways
        problems.append(f"{folder}/README.md has no readable YAML ({first_line(error)}); build it again.")
        infos = {}
    for configuration, info in infos.items():
        for name, split in (info.splits or {}).items():
            key = AUTO_TEST if configuration == AUTO_TEST else name
            if rows[key] != split.num_examples:
                problems.append(f"{key} has {rows[key]} images, its card states {split.num_examples}; build it again.")
    return sum(rows.values()), problems


def check_columns(columns: Iterable[str], where: str) -> None:
    """Raise KoaError if one of `FEATURES` is not among the columns; `where` names the data set in the message."""
    missing = [column for column in FEATURES if column not in columns]
    if missing:
        raise KoaError(
            f"{where} has no column {', '.join(missing)}; it needs {', '.join(FEATURES)}, "
            "as `koa dataset build` writes them."
        )


def first_line(error: BaseException) -> str:
    """First line of an error's message, or its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shards(folder: Path) -> list[tuple[str, Path]]:
    """List (split, Parquet file) of a built data set in the order of `SPLIT_FOLDERS`."""
    order = list(SPLIT_FOLDERS.values())
    found = [(path.name.partition("-")[0], path) for path in sorted(folder.glob("data/*.parquet"))]
    if unknown := [path for split, path in found if split not in order]:
        raise KoaError(f"{unknown[0]} is not named like a shard of {', '.join(order[:3])}; remove it or build again.")
    found += [(AUTO_TEST, path) for path in sorted(folder.glob(f"{AUTO_TEST}/*.parquet"))]
    return sorted(found, key=lambda shard: order.index(shard[0]))


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Hide the bar that `datasets` shows for every shard: the caller shows one for all."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
