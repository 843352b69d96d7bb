"""Any tree of DICOM files, images and zips -> a data set with one row a film, and a list of what was left out.

    data/films-00000.parquet     one row a film, with the columns of `FEATURES`
    left_out.csv                 every other file, with the reason
    README.md                    card; `datasets.load_dataset` loads the folder

No pixel is decoded: size, spacing, side and view are read from the header, so a film whose pixels are damaged is a row
here and an error when it is graded. Memory does not grow with the number of films.
"""

import csv
import hashlib
import hmac
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, DatasetCardData

from koa_hf.cohort import FILMS_PER_SHARD
from koa_hf.data.build import check_out
from koa_hf.data.dataset_card import state_split
from koa_hf.errors import KoaError
from koa_hf.files import put_in_place
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.imaging import archive, radiograph
from koa_hf.imaging.dicom import NOT_X_RAY
from koa_hf.progress import ProgressBar
from koa_hf.report.csv_table import harmless

COLUMNS = {
    "file": (datasets.Value("string"), "the file, relative to the source; `archive.zip/name` in a zip"),
    "image": (
        datasets.Image(decode=False),
        "`path`, where the film is read from, `zip://name::archive.zip` in a zip; or `bytes`, the file itself",
    ),
    "sha256": (datasets.Value("string"), "SHA-256 of the file, hexadecimal"),
    "width": (datasets.Value("int32"), "pixels"),
    "height": (datasets.Value("int32"), "pixels"),
    "spacing": (
        datasets.List(datasets.Value("float64")),
        "mm between rows and between columns, at the detector where nothing else is stated; null if unknown",
    ),
    "view": (datasets.Value("string"), "`AP`, `PA`, or null if the file states none"),
    "side": (datasets.Value("string"), "`right`, `left`, or null if the file states neither, or both"),
    "study_uid": (datasets.Value("string"), "Study Instance UID, {ids}; null if unknown"),
    "patient_id": (datasets.Value("string"), "Patient ID, {ids}; null if unknown"),
    "notes": (datasets.List(datasets.Value("string")), "sentences on choices made in reading the file"),
    "duplicate_of": (datasets.Value("string"), "`file` of the first film with the same content; null for that one"),
}
"""Name of a column -> (type, description)."""

FEATURES = datasets.Features({name: kind for name, (kind, _) in COLUMNS.items()})

SHARD_BYTES = 500_000_000
"""Embedded films fill a shard at this size, too."""

GROUP_BYTES = 32_000_000
"""Size of a row group: what is held in memory."""

LEAST_PIXELS = 40
"""Images with a shorter side are icons; a narrower knee can't be graded."""

SPLIT = "films"
LEFT_OUT = "left_out.csv"

_NO_IDS = "as a salted hash"


@dataclass(frozen=True)
class Built:
    """Numbers of films, of those that repeat an earlier one, and of files that were left out."""

    films: int
    duplicates: int
    left_out: int


@dataclass(frozen=True)
class Found:
    """A file in the source.

    Attributes:
        file: its name relative to the source.
        path: what opens it: a path, or a `zip://` address.
        content: its bytes, or why there are none.
    """

    file: str
    path: str
    content: bytes | KoaError


def build_cohort(
    source: str | Path,
    out: str | Path,
    *,
    embed: bool = False,
    keep_ids: bool = False,
    salt: bytes | None = None,
    overwrite: bool = False,
    films_per_shard: int = FILMS_PER_SHARD,
    progress: bool = False,
) -> Built:
    """List the films of a tree in a data set.

    Args:
        source: a folder, searched all the way down, or one file, such as a zip.
        out: folder to write. It appears once it is complete, or not at all.
        embed: store the files themselves instead of their paths, for a data set that can be moved and published.
        keep_ids: keep Study Instance UID and Patient ID as they are; by default they become 16 hexadecimal digits of
            an HMAC-SHA-256.
        salt: its key; by default a random one that nobody keeps. Two cohorts with the same salt share their hashes.
        overwrite: replace `out` if it is a data set built before.
        films_per_shard: most films of one Parquet file.
        progress: show progress on stderr.

    Raises:
        KoaError: no such source, no film in it, or `out` can't be written. A file that can't be read stops nothing.
    """
    source, out = Path(source), Path(out)
    if not source.exists():
        raise KoaError(f"{source} does not exist; check the path.")
    check_out(source, out, overwrite)
    pseudonym = None if keep_ids else Pseudonym(salt or secrets.token_bytes(32))
    scratch = out.parent / f".{out.name}.{os.getpid()}"
    films = duplicates = left_out = 0
    try:
        (scratch / "data").mkdir(parents=True)
        with ExitStack() as stack:
            seen = stack.enter_context(closing(FirstSeen(scratch / "seen.sqlite")))
            shards = stack.enter_context(Shards(scratch / "data", films_per_shard))
            listed = stack.enter_context((scratch / LEFT_OUT).open("w", newline="", encoding="utf-8"))
            others = csv.writer(listed)
            others.writerow(["file", "reason"])
            for found in ProgressBar(find_files(source), "listing", unit="file", disable=not progress):
                try:
                    row = film_row(found, embed, pseudonym)
                except KoaError as error:
                    others.writerow([harmless(found.file), str(error)])
                    left_out += 1
                    continue
                row["duplicate_of"] = seen.first(row["sha256"], found.file)
                shards.write(row)
                films += 1
                duplicates += row["duplicate_of"] is not None
        if not films:
            raise KoaError(f"{source} holds no films ({left_out} other files); check the path.")
        (scratch / "seen.sqlite").unlink()
        _card(Built(films, duplicates, left_out), shards.bytes, keep_ids).save(scratch / "README.md")
        put_in_place(scratch, out)
    except (OSError, sqlite3.Error) as error:
        raise KoaError(f"{out} can't be written: {getattr(error, 'strerror', None) or error}.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Built(films, duplicates, left_out)


def find_files(source: Path) -> Iterator[Found]:
    """Every file of a tree and of the zips in it, in the order of their names, one at a time, with its bytes or the
    reason why they can't be read."""
    if not source.is_dir():
        yield from _files_of(source, source.name)
        return
    unreadable: list[OSError] = []
    for folder, folders, names in os.walk(source, onerror=unreadable.append):
        for error in unreadable:
            place = Path(error.filename)
            yield _unread(place, _relative(place, source), f"this folder can't be read: {error.strerror}.")
        unreadable.clear()
        folders.sort()
        for name in folders:
            if (link := Path(folder, name)).is_symlink():
                yield _unread(link, _relative(link, source), "a link to a folder, which is not followed.")
        for name in sorted(names):
            yield from _files_of(Path(folder, name), _relative(Path(folder, name), source))


def _files_of(path: Path, file: str) -> Iterator[Found]:
    try:
        if not path.is_file():
            yield _unread(path, file, "not a file, or a link that leads nowhere.")
        elif path.suffix.lower() in (".zip", "") and archive.is_archive(path):
            where = os.path.abspath(path)
            for name, content in archive.members(path):
                yield Found(f"{file}/{name}", f"zip://{name}::{where}", content)
        elif path.stat().st_size > archive.MAX_FILE_BYTES:
            yield _unread(path, file, f"larger than {archive.MAX_FILE_BYTES / 1e6:.0f} MB, which no film is.")
        else:
            yield Found(file, os.path.abspath(path), path.read_bytes())
    except KoaError as error:
        yield Found(file, str(path), error)
    except OSError as error:
        yield _unread(path, file, f"it can't be read: {error.strerror or error}.")


def _unread(path: Path, file: str, why: str) -> Found:
    return Found(file, str(path), KoaError(why))


def _relative(path: Path, source: Path) -> str:
    """A name for people: bytes that are not UTF-8, as in old archives, become `\\xe9`."""
    return os.fsencode(path.relative_to(source)).decode(errors="backslashreplace")


def film_row(found: Found, embed: bool, pseudonym: "Pseudonym | None") -> dict[str, Any]:
    """The row of a film, without `duplicate_of`.

    Raises:
        KoaError: it is no film that can be graded; says why.
    """
    if isinstance(found.content, KoaError):
        raise found.content
    data, name = found.content, Path(found.file).name
    header = radiograph.read_header(data, name)
    if header.modality in NOT_X_RAY:
        raise KoaError(f"not a radiograph: its modality is {header.modality}.")
    if header.view not in (None, "AP", "PA"):
        raise KoaError(f"the file says {header.view} view; frontal ones are graded.")
    if min(header.width, header.height) < LEAST_PIXELS:
        raise KoaError(f"{header.width} x {header.height} pixels, too few to show a knee.")
    if not embed and not _is_utf8(found.path):
        raise KoaError("its path is not UTF-8, so it can't be stored; rename it, or give --embed.")
    ids = {"study_uid": header.study_uid, "patient_id": header.patient_id}
    return {
        "file": found.file,
        "image": {"bytes": data, "path": name} if embed else {"bytes": None, "path": found.path},
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": header.width,
        "height": header.height,
        "spacing": header.spacing,
        "view": header.view,
        "side": header.side,
        **{key: pseudonym(value) if pseudonym and value else value for key, value in ids.items()},
        "notes": list(header.notes),
    }


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


class Pseudonym:
    """Replaces an identifier by 16 hexadecimal digits of its HMAC-SHA-256: the same for the same key, and without the
    key not to be undone by trying all identifiers."""

    def __init__(self, key: bytes):
        self._key = key

    def __call__(self, identifier: str) -> str:
        return hmac.digest(self._key, identifier.encode(), "sha256").hex()[:16]


class FirstSeen:
    """The first film of each content; kept on disk, so that memory stays flat."""

    def __init__(self, path: Path):
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE seen (sha256 BLOB PRIMARY KEY, file TEXT) WITHOUT ROWID")

    def first(self, sha256: str, file: str) -> str | None:
        """The first film with this content; None if it is this one."""
        key = bytes.fromhex(sha256)
        new = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, file)).rowcount
        if new:
            return None
        return self._database.execute("SELECT file FROM seen WHERE sha256 = ?", (key,)).fetchone()[0]

    def close(self) -> None:
        self._database.close()


class Shards:
    """Writes rows to `films-00000.parquet` and so on."""

    def __init__(self, folder: Path, films_per_shard: int):
        self.folder, self.films_per_shard = folder, films_per_shard
        self.bytes = 0
        self._number = 0
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[dict] = []
        self._held = self._in_shard = self._shard_bytes = 0

    def write(self, row: dict) -> None:
        self._rows.append(row)
        size = len(row["image"]["bytes"] or b"")
        self._held += size
        self._in_shard += 1
        self._shard_bytes += size
        if self._held >= GROUP_BYTES:
            self._flush()
        if self._in_shard == self.films_per_shard or self._shard_bytes >= SHARD_BYTES:
            self._close()

    def _flush(self) -> None:
        if self._rows:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self.folder / f"films-{self._number:05d}.parquet", SCHEMA)
            table = pa.Table.from_pylist(self._rows, SCHEMA)
            self._writer.write_table(table)
            self.bytes += table.nbytes
        self._rows, self._held = [], 0

    def _close(self) -> None:
        self._flush()
        if self._writer:
            self._writer.close()
            self._writer = None
            self._number += 1
        self._in_shard = self._shard_bytes = 0

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()


SCHEMA = FEATURES.arrow_schema

_CARD = """\
# A cohort of knee radiographs

{films} films, listed by `koa cohort build`; {duplicates} of them repeat the content of an earlier one. {left_out} other
files were left out.

> {notice}

```python
from datasets import load_dataset

films = load_dataset("FOLDER_OR_HUB_ID", split="films")
```

## Columns

| column | |
|---|---|
{columns}
"""


def _card(built: Built, size: int, keep_ids: bool) -> DatasetCard:
    data = DatasetCardData(
        license="other",
        pretty_name="A cohort of knee radiographs",
        task_categories=["image-classification"],
        tags=["medical", "radiology", "x-ray", "knee"],
    )
    state_split(data, SPLIT, FEATURES, built.films, size)
    ids = "as in the file" if keep_ids else _NO_IDS
    body = _CARD.format(
        films=built.films,
        duplicates=built.duplicates,
        left_out=built.left_out,
        notice=RESEARCH_USE_NOTICE,
        columns="\n".join(f"| `{name}` | {text.format(ids=ids)} |" for name, (_, text) in COLUMNS.items()),
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}")
