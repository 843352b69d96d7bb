"""The results of a cohort: one Parquet file for each shard of its films, one row a knee.

    data/knees-00000-of-00040.parquet     whole, or not there
    run.json                              what was graded, by which model
    README.md                             card, once all shards are there

The columns are all fields of `koa_hf.grading.result.Grading`, `error`, and the columns of the films. A film that could
not be graded is a row with `file`, `error`, and the columns of the films.
"""

import contextlib
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, DatasetCardData

from koa_hf.data.dataset_card import state_split
from koa_hf.errors import KoaError
from koa_hf.files import replacing, write_text
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.result import Grading, NotGraded

SPLIT = "knees"
RUN = "run.json"
CARD = "README.md"

_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}


def _feature(kind: Any) -> datasets.Value | datasets.List:
    """The column type of a field's type, such as `tuple[int, int] | None`."""
    if isinstance(kind, types.UnionType):
        (kind,) = (one for one in typing.get_args(kind) if one is not type(None))
    if kind in _TYPES:
        return datasets.Value(_TYPES[kind])
    return datasets.List(_feature(typing.get_args(kind)[0]))


FEATURES = datasets.Features(
    {
        **{name: _feature(field.annotation) for name, field in Grading.model_fields.items() if not field.exclude},
        **{name: _feature(field.return_type) for name, field in Grading.model_computed_fields.items()},
        "error": datasets.Value("string"),
    }
)
"""Types of the fields of a result; `Grading.descriptions` and `NotGraded.descriptions` describe them."""


class Results:
    """The folder of a cohort's results.

    Attributes:
        folder: the folder.
        features: all columns.
        shards: number of files once everything is graded.
    """

    def __init__(self, folder: Path, shards: int, columns: datasets.Features):
        self.folder, self.shards = folder, shards
        self.features = datasets.Features({**FEATURES, **columns})

    def start(self, run: dict[str, Any]) -> None:
        """Record what is graded by what, or check that the results that are there have the same record.

        Raises:
            KoaError: they are of another run, or the folder can't be written.
        """
        run = run | {"shards": self.shards, "columns": self.features.to_dict()}
        file = self.folder / RUN
        try:
            if not file.exists():
                if any(one.name not in ("data", RUN) for one in self.folder.glob("[!.]*")):
                    raise KoaError(f"{self.folder} exists and holds other files; name another folder.")
                (self.folder / "data").mkdir(parents=True, exist_ok=True)
                write_text(file, json.dumps(run, indent=2) + "\n")
            before = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise unwritable(self.folder, error) from error
        if changed := [key for key in run if before.get(key) != run[key]]:
            raise KoaError(
                f"{self.folder} holds results of another run, with another {' and '.join(changed)} (see its {RUN}); "
                "name another folder."
            )

    def shard(self, number: int) -> Path:
        """Path of the results of a shard."""
        return self.folder / "data" / f"knees-{number:05d}-of-{self.shards:05d}.parquet"

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there."""
        return [number for number in range(self.shards) if not self.shard(number).exists()]

    def write(self, number: int, rows: Sequence[dict[str, Any]]) -> None:
        """Write the rows of a shard: the file is there whole, or not at all.

        Raises:
            KoaError: it can't be written.
        """
        schema = self.features.arrow_schema
        try:
            with replacing(self.shard(number)) as partial:
                pq.write_table(pa.Table.from_pylist(list(rows), schema), partial)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def finish(self) -> None:
        """Write the card, and delete what killed processes left. Call it once no shard is missing.

        Raises:
            KoaError: a shard is damaged, or the folder can't be written.
        """
        rows = failed = size = 0
        try:
            for number in range(self.shards):
                errors = pq.read_table(self.shard(number), columns=["error"])["error"]
                rows, failed = rows + len(errors), failed + len(errors) - errors.null_count
                size += self.shard(number).stat().st_size
            for partial in self.folder.glob("data/.*.partial"):
                with contextlib.suppress(FileNotFoundError):  # another process finishes, too
                    partial.unlink()
            run = json.loads((self.folder / RUN).read_text())
            write_text(self.folder / CARD, str(_card(run, self.features, rows, failed, size)))
        except pa.ArrowException as error:
            raise KoaError(f"{self.shard(number)} is damaged; delete it and grade again.") from error
        except OSError as error:
            raise unwritable(self.folder, error) from error


def row_of(outcome: Grading | NotGraded, columns: dict[str, Any]) -> dict[str, Any]:
    """One row: the fields of a result, and the columns of its film."""
    return {**columns, **outcome.to_dict()}


def unwritable(folder: Path, error: Exception) -> KoaError:
    return KoaError(f"{folder} can't be written or read: {getattr(error, 'strerror', None) or error}.")


_CARD = """\
# Grades of a cohort of knee radiographs

{rows} rows, one a knee, or one a film that could not be graded ({failed}; `error` tells why), by {model}, revision
{revision}, with koa-hf. Films: {dataset}, split {split}.

> {notice}

```python
from datasets import load_dataset

knees = load_dataset("FOLDER_OR_HUB_ID", split="knees")
```

## Columns

{columns}
"""


def _card(run: dict[str, Any], features: datasets.Features, rows: int, failed: int, size: int) -> DatasetCard:
    data = DatasetCardData(
        license="other",
        pretty_name="Grades of a cohort of knee radiographs",
        task_categories=["tabular-classification"],
        tags=["medical", "radiology", "x-ray", "knee", "osteoarthritis", "kellgren-lawrence"],
    )
    state_split(data, SPLIT, features, rows, size, download_size=size)
    described = {**Grading.descriptions(), **NotGraded.descriptions()}
    body = _CARD.format(
        rows=rows,
        failed=failed,
        model=Path(run["model"]).name if Path(run["model"]).is_absolute() else run["model"],
        revision=run["model_revision"],
        dataset=Path(run["dataset"]).name if Path(run["dataset"]).is_absolute() else run["dataset"],
        split=run["split"],
        notice=RESEARCH_USE_NOTICE,
        columns="\n".join(
            [
                "| column | |",
                "|---|---|",
                *(f"| `{name}` | {described.get(name, 'as in the data set of films')} |" for name in features),
            ]
        ),
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}")
