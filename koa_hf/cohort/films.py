"""The films of a data set, in a folder or on the Hub, streamed shard by shard."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from koa_hf.data.load import commit_of_revision, explained
from koa_hf.errors import KoaError
from koa_hf.grading.result import Grading, NotGraded

OWN_FIELDS = {**Grading.descriptions(), **NotGraded.descriptions()}
"""Fields of a result. Columns of the data set of the same name give way to them."""

NAMES = ("file", "file_name")
"""Columns that name a film; without either, it is the file name of its image."""


@dataclass(frozen=True)
class Film:
    """A row of the data set.

    Attributes:
        name: the file's name.
        image: `bytes` or `path` of the film, as `koa_hf.cohort.decode.find_on` takes it.
        side: `right` or `left` where the column `side` says so, else None.
        columns: what else the row says, by column.
    """

    name: str
    image: dict[str, Any]
    side: str | None
    columns: dict[str, Any]


class Films:
    """The films of a data set: one column of images, of any format this project reads, and any other columns.

    Attributes:
        identity: what they are, so that results of other films are not mixed with theirs: name, split, and the commit
            on the Hub or a fingerprint of the folder.
        shards: number of files that the data set is stored in.
        films: number of films; None if the data set's card does not tell.
        features: types of `Film.columns`.
    """

    def __init__(self, path_or_id: str | Path, split: str | None = None, revision: str | None = None):
        """Open a data set; films are read when they are asked for.

        Args:
            path_or_id: a folder that `datasets.load_dataset` loads, such as one written by `koa cohort build`, or the
                id of a data set on the Hub.
            split: by default the only one.
            revision: branch, tag or commit on the Hub.

        Raises:
            KoaError: no such data set, a choice of splits, or no column of images.
        """
        path = Path(path_or_id)
        where = str(path.resolve()) if path.is_dir() else str(path_or_id)
        commit = _fingerprint(path) if path.is_dir() else commit_of_revision(where, revision)
        with explained(str(path_or_id), revision=revision):
            options = {} if path.is_dir() else {"revision": commit or revision}
            splits = datasets.load_dataset(where, streaming=True, **options)
        if split is None and len(splits) > 1:
            raise KoaError(f"{path_or_id} has the splits {', '.join(splits)}; choose one with --split.")
        split = split or next(iter(splits))
        if split not in splits:
            raise KoaError(f"{path_or_id} has no split {split!r}, but {', '.join(splits)}.")
        rows = splits[split]
        images = [name for name, kind in (rows.features or {}).items() if isinstance(kind, datasets.Image)]
        if not images:
            raise KoaError(f"{path_or_id} has no column of images; make one with `koa cohort build`.")
        self._image = images[0]
        self._rows = rows.cast_column(self._image, datasets.Image(decode=False))
        self.identity = {"dataset": where, "split": split, "dataset_revision": commit}
        self.shards = rows.num_shards
        self.films = rows.info.splits[split].num_examples if split in (rows.info.splits or {}) else None
        self.features = datasets.Features(
            {name: kind for name, kind in rows.features.items() if name not in {self._image, *OWN_FIELDS}}
        )

    def shard(self, number: int) -> Iterator[Film]:
        """Films of one shard, in order."""
        with explained(self.identity["dataset"]):
            for row in self._rows.shard(self.shards, number):
                image = row[self._image] or {"bytes": None, "path": None}
                named = next((row[name] for name in NAMES if row.get(name)), None)
                name = named or Path(image["path"] or f"a film of shard {number}").name
                side = row.get("side") if row.get("side") in ("right", "left") else None
                yield Film(name, image, side, {column: row[column] for column in self.features})


def _fingerprint(folder: Path) -> str:
    """A hash of the names, sizes and ends of a folder's Parquet files; the end of one describes its rows."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.parquet")):
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(max(0, size - 4096))
            digest.update(f"{file.relative_to(folder)} {size} ".encode(errors="surrogateescape") + opened.read())
    return digest.hexdigest()[:16]
