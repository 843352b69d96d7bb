"""The built data set on disk: Parquet shards of the released files, written from the release and read back.

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

from koa_hf.data.release import AUTO_TEST, SPLIT_FOLDERS, Knee, Release, decode, is_release, knee_of
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
"""The columns: one row an image, `image` with the bytes of the released PNG."""

IMAGES_PER_SHARD = 2000
"""About 50 MB of PNG: what `write_split` holds in memory at once, whatever the size of the release."""


def is_built(path: Path) -> bool:
    """Whether `path` is a folder that `koa_hf.data.build.build` wrote, judged by its shards being there."""
    return path.is_dir() and any(path.glob("data/*.parquet"))


def check_built(path: Path) -> None:
    """KoaError where `path` isn't a folder that `build` wrote."""
    if is_built(path):
        return
    if is_release(path):
        raise KoaError(
            f"{path} is the release itself; run `python -m koa_hf.data.build build {path} OUT` first, then give OUT."
        )
    raise KoaError(
        f"{path} holds no data set (no data/*.parquet); give a folder written by `python -m koa_hf.data.build build`."
    )


def write_split(release: Release, knees: list[Knee], out: Path, advance: Callable[[], None]) -> datasets.SplitInfo:
    """Write the shards of one split, one after another, and say what was written.

    Args:
        release: what the files are read from.
        knees: all of one split, in the order of the rows.
        out: the data set's folder.
        advance: called once for every image.

    Raises:
        KoaError: a file can't be read or is no whole PNG image.
        OSError: a shard can't be written.
    """
    split = "test" if knees[0].split == AUTO_TEST else knees[0].split
    folder = out / (AUTO_TEST if knees[0].split == AUTO_TEST else "data")
    folder.mkdir(exist_ok=True)
    shards = -(-len(knees) // IMAGES_PER_SHARD)
    num_bytes = 0
    for shard in range(shards):
        part = knees[shard * len(knees) // shards : (shard + 1) * len(knees) // shards]
        num_bytes += _write_shard(release, part, folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet", advance)
        pa.default_memory_pool().release_unused()
    return datasets.SplitInfo(name=split, num_bytes=num_bytes, num_examples=len(knees))


def _write_shard(release: Release, knees: list[Knee], path: Path, advance: Callable[[], None]) -> int:
    """Write one file, and say how many bytes its rows take in memory, of which none stay there."""
    images = []
    for knee in knees:
        data = release.read(knee.member)
        decode(data, knee.member)
        images.append({"bytes": data, "path": knee.file_name})
        advance()
    # Not Dataset.from_dict: its encoder drops the bytes where the working directory has a file of that name.
    columns = {"image": images}
    columns |= {name: [getattr(knee, name) for knee in knees] for name in FEATURES if name != "image"}
    table = pa.table(columns, schema=FEATURES.arrow_schema)
    with _no_progress_bars():
        datasets.Dataset(InMemoryTable(table)).to_parquet(path)
    return table.nbytes


def images_of(folder: Path) -> Iterator[tuple[Knee, Callable[[], bytes]]]:
    """Every row of a built data set, read a few at a time: the knee, and a function that gives its PNG."""
    for split, path in _shards(folder):
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=64, columns=list(FEATURES)):
                for row in batch.to_pylist():
                    image = row.pop("image")
                    knee = knee_of(split=split, member=f"{split}/{row['file_name']}", **row)
                    yield knee, functools.partial(bytes, image["bytes"] or b"")


def check_shards(folder: Path) -> tuple[int, list[str]]:
    """(number of rows, problems): every shard there, readable, with its columns, and as many rows as the card says.

    Raises:
        KoaError: a shard is misnamed, unreadable, or without its columns, so that its rows can't be looked at.
    """
    rows, seen, problems = Counter(), defaultdict(set), []
    for split, path in _shards(folder):
        try:
            parquet = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise KoaError(f"{path} is no readable Parquet file ({first_line(error)}); build it again.") from error
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
    except Exception as error:  # YAML, or the Hub's checks of it, may fail in many ways
        problems.append(f"{folder}/README.md has no readable YAML ({first_line(error)}); build it again.")
        infos = {}
    for configuration, info in infos.items():
        for name, split in (info.splits or {}).items():
            key = AUTO_TEST if configuration == AUTO_TEST else name
            if rows[key] != split.num_examples:
                problems.append(f"{key} has {rows[key]} images, its card says {split.num_examples}; build it again.")
    return sum(rows.values()), problems


def check_columns(columns: Iterable[str], where: str) -> None:
    """KoaError where one of `FEATURES` is not among the columns; `where` is for the message."""
    missing = [column for column in FEATURES if column not in columns]
    if missing:
        raise KoaError(
            f"{where} has no column {', '.join(missing)}; it needs {', '.join(FEATURES)}, "
            "as `python -m koa_hf.data.build build` writes them."
        )


def first_line(error: BaseException) -> str:
    """What the error says first; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shards(folder: Path) -> list[tuple[str, Path]]:
    """(split, Parquet file) of a built data set, in the order of `SPLIT_FOLDERS`."""
    order = list(SPLIT_FOLDERS.values())
    found = [(path.name.partition("-")[0], path) for path in sorted(folder.glob("data/*.parquet"))]
    if unknown := [path for split, path in found if split not in order]:
        raise KoaError(f"{unknown[0]} is not named like a shard of {', '.join(order[:3])}; remove it or build again.")
    found += [(AUTO_TEST, path) for path in sorted(folder.glob(f"{AUTO_TEST}/*.parquet"))]
    return sorted(found, key=lambda shard: order.index(shard[0]))


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Silence the bar that `datasets` shows for every shard."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
