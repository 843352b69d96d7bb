"""Data-set rows as what the network takes."""

import math
from collections.abc import Iterable

import psutil
import torch
from datasets import Dataset as HubDataset
from datasets import DatasetDict, Image

from koa_hf.errors import KoaError
from koa_hf.grading.rules import Rules
from koa_hf.imaging import radiograph
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.network.preprocess import Preprocessing

MOST_KEPT = 0.25  # of the free memory


class KneeImages(torch.utils.data.Dataset):
    """One split: row i -> {"pixels": uint8 (size, size), "label": int, "row": i, "width": int}.

    `width` is the X-ray's shorter side in pixels, as it was read. Grey and not yet normalised: a third of the bytes to
    move, and what augmentation works on.
    """

    def __init__(self, split: HubDataset, preprocessing: Preprocessing, rules: Rules | None = None, keep: bool = False):
        """X-rays are righted by `rules` first; without them every one is taken as it is.

        Args:
            keep: hold in memory what was decoded (50 kB for each of the release's crops), so that it is decoded once in
                a process, however many epochs follow, and the pixels made of it (size x size bytes), until
                `preprocessing` is changed.
        """
        self.split = split.cast_column("image", Image(decode=False))
        self.rules = rules or Rules()
        self._kept: dict[int, tuple[Radiograph, int]] | None = {} if keep else None
        self.preprocessing = preprocessing

    @property
    def preprocessing(self) -> Preprocessing:
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, new: Preprocessing) -> None:
        if new != getattr(self, "_preprocessing", None):
            self._preprocessing, self._rows = new, {}

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> dict:
        """What is kept is given out itself and not a copy: collate it, don't change it."""
        if self._kept is None:
            return self._row(row, *self._decoded(row))
        if row not in self._kept:
            self._kept[row] = self._decoded(row)
        if row not in self._rows:
            self._rows[row] = self._row(row, *self._kept[row])
        return self._rows[row]

    def _row(self, row: int, xray: Radiograph, grade: int) -> dict:
        pixels = torch.from_numpy(self.preprocessing.to_uint8(xray))
        return {"pixels": pixels, "label": grade, "row": row, "width": min(xray.pixels.shape)}

    def _decoded(self, row: int) -> tuple[Radiograph, int]:
        example = self.split[row]
        source = example["image"]["bytes"] or example["image"]["path"]
        xray = self.rules.righted(radiograph.read(source, name=example.get("file_name"))).xray
        return xray, example["label"]


def fit_in_memory(splits: Iterable[HubDataset], image_size: int, processes: int) -> bool:
    """Whether what `KneeImages` keeps of some splits takes less than `MOST_KEPT` of this machine's free memory.

    Judged by the first image of each, and by the largest size that they are given to the network in. Every process
    keeps its own.
    """
    needed = 0
    for split in splits:
        if len(split):
            needed += len(split) * (math.prod(split[0]["image"].size) + image_size**2) * processes
    return needed < MOST_KEPT * psutil.virtual_memory().available


def choose_split(data: DatasetDict, split: str, source: str) -> HubDataset:
    """One split of a data set.

    Raises:
        KoaError: it has no such split; the message names those that it has.
    """
    if split not in data:
        raise KoaError(f"{source} has no {split} split; it has: {', '.join(data)}.")
    return data[split]
