"""Data-set rows as what the network takes."""

from collections.abc import Callable

import torch
from datasets import Dataset as HubDataset
from datasets import DatasetDict, Image

from koa_hf import Grader, radiograph
from koa_hf.errors import KoaError
from koa_hf.preprocess import Preprocessing
from koa_hf.radiograph import Radiograph


class KneeImages(torch.utils.data.Dataset):
    """One split: row i -> {"pixels": uint8 (size, size), "label": int, "row": i}.

    Grey and not yet normalised: a third of the bytes to move, and what augmentation works on.
    """

    def __init__(
        self,
        split: HubDataset,
        preprocessing: Preprocessing,
        prepare: Callable[[Radiograph], Radiograph] | None = None,
    ):
        """`prepare` is done to each X-ray before preprocessing."""
        self.split = split.cast_column("image", Image(decode=False))
        self.preprocessing = preprocessing
        self.prepare = prepare

    @classmethod
    def seen_by(cls, grader: Grader, split: HubDataset) -> "KneeImages":
        """The split as a grader sees it: righted by its rules, and preprocessed as it has it."""
        return cls(split, grader.preprocessing, lambda one: grader.righted(one)[0])

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> dict:
        example = self.split[row]
        source = example["image"]["bytes"] or example["image"]["path"]
        xray = radiograph.read(source, name=example.get("file_name"))
        if self.prepare:
            xray = self.prepare(xray)
        return {
            "pixels": torch.from_numpy(self.preprocessing.to_uint8(xray)),
            "label": example["label"],
            "row": row,
        }


def choose_split(data: DatasetDict, split: str, source: str) -> HubDataset:
    """One split of a data set.

    Raises:
        KoaError: it has no such split; the message names those that it has.
    """
    if split not in data:
        raise KoaError(f"{source} has no {split} split; it has: {', '.join(data)}.")
    return data[split]
