"""The frozen trunk's output, computed once.

Without augmentation, what is frozen is a pure function of the image. Its output at a cut is kept on disk,
and the epochs train only what comes after the cut. A cache is keyed by everything that decides its content (trunk
weights, data set, image size, cut, precision, what computes it), is filled by all processes together, and goes on
where a killed run left it.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from koa_hf.errors import KoaError
from koa_hf.network import xception
from koa_hf.network.preprocess import normalise
from train.loop.knee_images import KneeImages
from train.loop.trunk import AnyTrunk, ways

# bfloat16 has no NumPy type: its bits are stored as 16-bit integers.
STORED_AS = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.int16}
TIMED = 3  # batches of each way to compute the trunk, after one that prepares it


@dataclass(frozen=True)
class Slot:
    """Where the activations of one split at one cut lie: `values.bin` (rows, *shape) and `done.bin` (rows,).

    shape: of one row as it is stored, channels last: (channels,), (height, width, channels), or (2, height, ...).
    """

    folder: Path
    rows: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return self.rows * int(np.prod(self.shape)) * np.dtype(STORED_AS[self.dtype]).itemsize

    def create(self) -> None:
        """Lay out both files as holes; disk is taken as rows are written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, size in (("values.bin", self.bytes), ("done.bin", self.rows)):
            path = self.folder / name
            if not path.exists() or path.stat().st_size != size:
                with open(path, "wb") as file:
                    file.truncate(size)

    def values(self, mode: str) -> np.memmap:
        return np.memmap(self.folder / "values.bin", STORED_AS[self.dtype], mode, shape=(self.rows, *self.shape))

    def done(self, mode: str) -> np.memmap:
        return np.memmap(self.folder / "done.bin", np.uint8, mode, shape=(self.rows,))


Slots = dict[str, dict[str, Slot]]  # cut -> split -> slot


class CachedActivations(Dataset):
    """Row i -> {"activation": at the cut and channels last (train/loop/trunk.py), "label": int, "row": i}."""

    def __init__(self, slot: Slot, labels: list[int]):
        self.slot, self.labels = slot, labels

    def __len__(self) -> int:
        return self.slot.rows

    def __getitem__(self, row: int) -> dict:
        # Read and not mapped: one request to the disk for a row, however cold it is.
        slot, count = self.slot, int(np.prod(self.slot.shape))
        stored = np.dtype(STORED_AS[slot.dtype])
        values = np.fromfile(slot.folder / "values.bin", stored, count, offset=row * count * stored.itemsize)
        activation = torch.from_numpy(values.reshape(slot.shape)).view(slot.dtype)
        return {"activation": activation, "label": self.labels[row], "row": row}


class TrunkCache:
    """All caches of one run.

    Args:
        folder: where they lie; shared by all processes.
        accelerator: the run's.
        precision: the name of the precision that the run computes in; part of the key.
        batch_size: images a forward pass and process.
        stop: called between batches; True means that the run was asked to end.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        precision: str,
        batch_size: int = 16,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.folder, self.accelerator, self.precision = Path(folder), accelerator, precision
        self.batch_size, self.stop = batch_size, stop
        self.seconds = 0.0  # spent in forward passes so far

    def open(
        self, model: nn.Module, images: dict[str, KneeImages], fingerprints: dict[str, str], cuts: list[str]
    ) -> dict[str, dict[str, CachedActivations]]:
        """Activations of every split at every cut, computed where they are not there yet, in one pass an image.

        Args:
            model: the full network; what lies in front of the last cut must not change while the caches are in use.
            images: split name -> images.
            fingerprints: split name -> fingerprint of the split's content.
            cuts: names of steps (koa_hf.network.xception.STEPS).

        Returns:
            cut -> split -> activations.

        Raises:
            KoaError: the disk is too small.
        """
        size = next(iter(images.values())).preprocessing.image_size
        weights = {cut: xception.fingerprint(model, before=cut) for cut in cuts}
        trunks = ways(model, cuts, self.accelerator, sum(map(len, images.values())), size)
        all_slots = [self._slots(trunk, weights, images, fingerprints) for trunk in trunks]
        number = self._choice(trunks, all_slots, size)
        trunk, slots = trunks[number], all_slots[number]
        self._check_disk([slot for at_cut in slots.values() for slot in at_cut.values()])
        if self.accelerator.is_main_process:
            for at_cut in slots.values():
                for slot in at_cut.values():
                    slot.create()
        self.accelerator.wait_for_everyone()
        for split in images:
            self._fill(trunk, images[split], {cut: slots[cut][split] for cut in trunk.cuts}, split)
        self.accelerator.wait_for_everyone()
        return {
            cut: {split: CachedActivations(slots[cut][split], images[split].split["label"][:]) for split in images}
            for cut in cuts
        }

    def remove(self) -> None:
        """Give the disk back."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _choice(self, trunks: list[AnyTrunk], all_slots: list[Slots], size: int) -> int:
        """The number of the trunk that the cache was begun with, else of the fastest; the same in all processes."""
        begun = [any(slot.folder.exists() for one in slots.values() for slot in one.values()) for slots in all_slots]
        [number] = broadcast_object_list([begun.index(True) if any(begun) else None])
        if number is None and len(trunks) > 1:
            seconds = self._seconds(trunks, size)
            [number] = broadcast_object_list([seconds.index(min(seconds))])
            for trunk, taken in zip(trunks, seconds, strict=True):
                self.accelerator.print(f"trunk by {trunk.engine}: {1000 * taken / self.batch_size:.0f} ms an image")
        return number or 0

    def _seconds(self, trunks: list[AnyTrunk], size: int) -> list[float]:
        """What each takes for a batch at best; they take turns."""
        pixels = torch.zeros(self.batch_size, size, size, dtype=torch.uint8)
        taken: list[list[float]] = [[] for _ in trunks]
        for _ in range(1 + TIMED):
            for trunk, of_trunk in zip(trunks, taken, strict=True):
                began = time.perf_counter()
                self._forward(trunk, pixels)
                of_trunk.append(time.perf_counter() - began)
        return [min(of_trunk[1:]) for of_trunk in taken]

    @torch.no_grad()
    def _forward(self, trunk: AnyTrunk, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        with self.accelerator.autocast():
            return dict(zip(trunk.cuts, trunk(normalise(pixels.to(self.accelerator.device))), strict=True))

    def _slots(self, trunk: AnyTrunk, weights: dict[str, str], images: dict[str, KneeImages], fingerprints) -> Slots:
        size = next(iter(images.values())).preprocessing.image_size
        example = self._forward(trunk, torch.zeros(1, size, size, dtype=torch.uint8))
        slots = {}
        for cut in trunk.cuts:
            slots[cut] = {}
            for split, rows in images.items():
                shape, dtype = tuple(example[cut].shape[1:]), example[cut].dtype
                parts = [weights[cut], fingerprints[split], size, cut, self.precision, trunk.engine, str(dtype)]
                key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
                slots[cut][split] = Slot(self.folder / f"{split}-{cut}-{key}", len(rows), shape, dtype)
        return slots

    def _check_disk(self, slots: list[Slot]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = sum(slot.bytes for slot in slots if not (slot.folder / "done.bin").exists())
        free = shutil.disk_usage(self.folder).free
        if needed:
            self.accelerator.print(
                f"trunk cache: {needed / 1e9:.2f} GB in {self.folder} ({free / 1e9:.1f} GB are free there)"
            )
        if needed > 0.95 * free:
            raise KoaError(
                f"the trunk cache needs {needed / 1e9:.2f} GB, but {self.folder} has {free / 1e9:.2f} GB free; "
                "name a larger place with --cache-dir, or train without it with --no-cache."
            )

    def _fill(self, trunk, images: KneeImages, slots: dict[str, Slot], split: str) -> None:
        # Decided before anybody writes, so that all processes share out the same rows.
        missing = np.flatnonzero(np.min([slot.done("r") for slot in slots.values()], axis=0) == 0)
        self.accelerator.wait_for_everyone()
        if not len(missing):
            return
        count, index = self.accelerator.num_processes, self.accelerator.process_index
        mine = missing[index::count]
        values = {cut: slot.values("r+") for cut, slot in slots.items()}
        done = {cut: slot.done("r+") for cut, slot in slots.items()}
        loader = DataLoader(Subset(images, mine.tolist()), self.batch_size)
        began, hidden = time.perf_counter(), not self.accelerator.is_main_process
        with tqdm(total=len(mine), desc=f"trunk, {split}", unit="image", disable=hidden, mininterval=1) as bar:
            for batch in loader:
                if self.stop():
                    raise SystemExit(143)  # rows done so far are kept
                rows = batch["row"].numpy()
                for cut, activation in self._forward(trunk, batch["pixels"]).items():
                    if activation.dtype == torch.bfloat16:
                        activation = activation.view(torch.int16)
                    values[cut][rows] = activation.cpu().numpy()
                    done[cut][rows] = 1
                bar.update(len(rows))
        self.seconds += time.perf_counter() - began
