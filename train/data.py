"""Data-set rows as what the network takes."""

import torch
from datasets import Dataset as HubDataset
from datasets import DatasetDict, Image

from koa_hf import radiograph
from koa_hf.errors import KoaError
from koa_hf.preprocess import Preprocessing
from koa_hf.rules import Rules


class KneeImages(torch.utils.data.Dataset):
    """One split: row i -> {"pixels": uint8 (size, size), "label": int, "row": i, "width": int}.

    `width` is the X-ray's shorter side in pixels, as it was read. Grey and not yet normalised: a third of the bytes to
    move, and what augmentation works on.
    """

    def __init__(self, split: HubDataset, preprocessing: Preprocessing, rules: Rules | None = None):
        """X-rays are righted by `rules` first; without them every one is taken as it is."""
        self.split = split.cast_column("image", Image(decode=False))
        self.preprocessing = preprocessing
        self.rules = rules or Rules()

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> dict:
        example = self.split[row]
        source = example["image"]["bytes"] or example["image"]["path"]
        xray = self.rules.righted(radiograph.read(source, name=example.get("file_name"))).xray
        return {
            "pixels": torch.from_numpy(self.preprocessing.to_uint8(xray)),
            "label": example["label"],
            "row": row,
            "width": min(xray.pixels.shape),
        }


def choose_split(data: DatasetDict, split: str, source: str) -> HubDataset:
    """One split of a data set.

    Raises:
        KoaError: it has no such split; the message names those that it has.
    """
    if split not in data:
        raise KoaError(f"{source} has no {split} split; it has: {', '.join(data)}.")
    return data[split]
