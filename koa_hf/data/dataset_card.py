"""The data set's card, with tables and YAML counted from the images packed."""

from pathlib import Path

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from koa_hf.data.release import AUTO_TEST, EDITIONS, ReleaseImage, count_grades, count_patients, edition_of
from koa_hf.data.shards import FEATURES
from koa_hf.grades import GRADES, RESEARCH_USE_NOTICE

PLACEHOLDER = "FOLDER_OR_HUB_ID"
"""Stands in the card for the data set's location; publishing replaces it by the repository's id."""

_CARD = """\
# {title}

Anteroposterior radiographs of single knees, each with its Kellgren-Lawrence (KL) grade of osteoarthritis, 0 to 4.
This copy is {edition}.

> {notice}

```python
from datasets import load_dataset

knees = load_dataset("FOLDER_OR_HUB_ID")  # from the Hub also with revision="..." and streaming=True
print(knees["{first}"].features["label"].names)
```

## Splits

{table}

No patient is in two splits.{auto_test}

## Columns

| column | |
|---|---|
| `image` | the released PNG, byte for byte |
| `label` | KL grade: {grades} |
| `patient_id` | seven digits, shared by both knees of a patient; if you split again, split by patient |
| `side` | `left` or `right` knee |
| `file_name` | file name in the release |

{source}"""

_CARD_SOURCE = """\
## Source

Pingjun Chen, *Knee Osteoarthritis Severity Grading Dataset*, Mendeley Data, 2018,
doi [10.17632/56rmx5bjcr.1](https://doi.org/10.17632/56rmx5bjcr.1), licence
[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/): credit it when you share the data. Derived from the
Osteoarthritis Initiative (OAI). The images and labels are unchanged; only the packaging is new.

```bibtex
@misc{chen2018knee,
  author    = {Chen, Pingjun},
  title     = {Knee Osteoarthritis Severity Grading Dataset},
  year      = {2018},
  publisher = {Mendeley Data},
  version   = {V1},
  doi       = {10.17632/56rmx5bjcr.1}
}
```

## Known issues

- About 1.2 % of the images are photographic negatives (bone dark): roughly 70 in train, 14 in validation, 26 in test.
- The grades are imbalanced: 40 % are grade 0 and 3 % grade 4.
- Grade 1 ("doubtful") is noisy: inter-reader agreement on the KL scale is a weighted kappa of 0.56 to 0.97, depending
  on the study.
- The two knees of a patient have the same grade in about half of the patients, so splitting by image leaks.
- The release shows the test patients a second time, cropped by a detector (the configuration `auto_test`, if it was
  packed). Do not train on it or pool it with `test`.
"""

_CARD_OTHER_SOURCE = """\
## Source

The number of images differs from the public release (Chen, 2018, doi 10.17632/56rmx5bjcr.1), so this is a selection
from it, or other data in its layout, such as drawn phantoms. State the source here before you share it.
"""


def render(images: list[ReleaseImage], splits: dict[str, datasets.SplitInfo], folder: Path) -> DatasetCard:
    """Render the card: YAML for `datasets` and the Hub, then the description.

    Args:
        images: every image packed.
        splits: split, with `auto_test` as one of them -> what was written.
        folder: the data set's folder with its shards, for the download size.
    """
    counts = count_grades(images)
    edition = edition_of(counts)
    total = sum(map(sum, counts.values()))
    title = "Knee osteoarthritis X-rays with Kellgren-Lawrence grades"
    data = DatasetCardData(
        license="cc-by-4.0",
        pretty_name=title,
        task_categories=["image-classification"],
        annotations_creators=["expert-generated"] if edition != "other" else None,
        source_datasets=["original"] if edition != "other" else None,
        size_categories=["n<1K" if total < 1000 else "1K<n<10K" if total < 10_000 else "10K<n<100K"],
        tags=["medical", "radiology", "x-ray", "knee", "osteoarthritis", "kellgren-lawrence"],
    )
    configurations = {"default": {split: info for split, info in splits.items() if split != AUTO_TEST}}
    if AUTO_TEST in splits:
        configurations[AUTO_TEST] = {"test": splits[AUTO_TEST]}
    infos, files = DatasetInfosDict(), MetadataConfigs()
    for name, parts in configurations.items():
        where = "data" if name == "default" else name
        infos[name] = datasets.DatasetInfo(
            features=FEATURES,
            splits=datasets.SplitDict({info.name: info for info in parts.values()}),
            dataset_size=sum(info.num_bytes for info in parts.values()),
            download_size=sum(path.stat().st_size for path in (folder / where).glob("*.parquet")),
        )
        files[name] = {"data_files": [{"split": split, "path": f"{where}/{split}-*"} for split in parts]}
    files.to_dataset_card_data(data)
    infos.to_dataset_card_data(data)

    patients = count_patients(images)
    rows = [f"| split | {' | '.join(f'{g.value} {g.name}' for g in GRADES)} | images | patients |", "|---" * 8 + "|"]
    for split, grades in counts.items():
        rows.append(f"| {split} | {' | '.join(map(str, grades))} | {sum(grades)} | {patients[split]} |")
    auto_test = (
        f" `load_dataset(..., {AUTO_TEST!r})` loads the test patients a second time, cropped by a detector: "
        "do not train on it or pool it with test."
        if AUTO_TEST in splits
        else ""
    )
    body = _CARD.format(
        title=title,
        first=next(iter(counts)),
        edition=EDITIONS[edition],
        notice=RESEARCH_USE_NOTICE,
        table="\n".join(rows),
        auto_test=auto_test,
        grades=", ".join(f"{grade.value} {grade.name}" for grade in GRADES),
        source=_CARD_OTHER_SOURCE if edition == "other" else _CARD_SOURCE,
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}")


def state_split(
    card: DatasetCardData,
    split: str,
    features: datasets.Features,
    rows: int,
    size: int,
    download_size: int | None = None,
) -> None:
    """State in a card that a data set has one split, in `data/*.parquet`.

    Args:
        size: bytes of the rows.
        download_size: bytes of the files; None if unknown.
    """
    info = datasets.DatasetInfo(
        features=features,
        splits=datasets.SplitDict({split: datasets.SplitInfo(name=split, num_bytes=size, num_examples=rows)}),
        dataset_size=size,
        download_size=download_size,
    )
    MetadataConfigs(default={"data_files": [{"split": split, "path": "data/*.parquet"}]}).to_dataset_card_data(card)
    DatasetInfosDict(default=info).to_dataset_card_data(card)
