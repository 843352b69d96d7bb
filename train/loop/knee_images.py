"""Data-set rows as tensors for the network."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import psutil
import torch
from accelerate import Accelerator
from datasets import Dataset as HubDataset
from datasets import DatasetDict, Image

from koa_hf.errors import KoaError
from koa_hf.grading.rules import Rules
from koa_hf.imaging import radiograph
from koa_hf.network.preprocess import Preprocessing
from koa_hf.progress import ProgressBar
from train.loop.device import cores_per_process

MOST_KEPT = 0.25  # of the free memory
MOST_THREADS = 4


class KneeImages(torch.utils.data.Dataset):
    """One split: row i -> {"pixels": uint8 (size, size), "label": int, "row": i}.

    Pixels are grey and not yet normalised: a third of the bytes to move, and the input of augmentation.
    """

    def __init__(self, split: HubDataset, preprocessing: Preprocessing, rules: Rules | None = None, keep: bool = False):
        """Wrap a split.

        Args:
            preprocessing: resizes to a square; may be changed later, for progressive resizing.
            rules: correct polarity and orientation by these first; None: take every X-ray as it is.
            keep: cache the resized pixels in memory (size x size bytes an X-ray) until `preprocessing` changes.
        """
        self.split = split.cast_column("image", Image(decode=False))
        self.rules = rules or Rules()
        self._keep = keep
        self.preprocessing = preprocessing

    @property
    def preprocessing(self) -> Preprocessing:
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, new: Preprocessing) -> None:
        if new != getattr(self, "_preprocessing", None):
            self._preprocessing, self._rows = new, {}  # row -> what `__getitem__` gives

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> dict:
        """Returns the cached object; do not mutate it."""
        if row in self._rows:
            return self._rows[row]
        example = self.split[row]
        source = example["image"]["bytes"] or example["image"]["path"]
        xray = self.rules.righted(radiograph.read(source, name=example.get("file_name"))).xray
        pixels = torch.from_numpy(self.preprocessing.to_uint8(xray))
        found = {"pixels": pixels, "label": example["label"], "row": row}
        if self._keep:
            self._rows[row] = found
        return found

    def resize_to(self, size: int, accelerator: Accelerator) -> None:
        """Give pixels of another size from now on; with `keep`, decode and resize them now, on all of its cores."""
        self.preprocessing = Preprocessing(size)
        if not self._keep or len(self._rows) == len(self):
            return
        # Half of the work holds Python's lock: more threads would only wait for it.
        with ThreadPoolExecutor(min(MOST_THREADS, cores_per_process(accelerator))) as pool:
            rows = pool.map(self.__getitem__, range(len(self)))
            for _ in ProgressBar(rows, "decoding", len(self), disable=not accelerator.is_main_process):
                pass


def fit_in_memory(splits: Iterable[HubDataset], image_size: int, processes: int) -> bool:
    """True if `KneeImages(keep=True)` of all splits takes less than `MOST_KEPT` of this machine's free memory.

    Every process keeps its own copy.

    Args:
        image_size: largest size that images are resized to, in pixels.
    """
    needed = sum(map(len, splits)) * image_size**2 * processes
    return needed < MOST_KEPT * psutil.virtual_memory().available


def choose_split(data: DatasetDict, split: str, source: str) -> HubDataset:
    """One split of a data set; `source` names the data set in messages.

    Raises:
        KoaError: no such split; the message lists the splits there are.
    """
    if split not in data:
        raise KoaError(f"{source} has no {split} split; its splits are: {', '.join(data)}.")
    return data[split]


def evenly_spaced(split: HubDataset, limit: int | None) -> HubDataset:
    """At most `limit` evenly spaced rows, for a trial run; None: the whole split."""
    if limit is None or limit >= len(split):
        return split
    return split.select([i * len(split) // limit for i in range(limit)])
