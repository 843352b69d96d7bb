"""The frozen trunk's output, computed once and kept on disk.

Without augmentation the frozen layers are a pure function of the image, so the epochs need only the layers after the
cut. The key of a cache holds everything that decides its content: trunk weights, data set, image size, cut, precision
and engine. All processes fill it together, and a killed run's cache is continued.
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

from koa_hf.errors import KoaError
from koa_hf.network import xception
from koa_hf.network.preprocess import normalise
from koa_hf.progress import progress_bar
from train.loop.knee_images import KneeImages
from train.loop.trunk import AnyTrunk, candidate_trunks

# bfloat16 has no NumPy type: its bits are stored as 16-bit integers.
STORED_AS = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.int16}
TIMED = 3  # batches measured for each engine, after one that warms it up


@dataclass(frozen=True)
class ActivationFiles:
    """Files of one split at one cut: `values.bin` (rows, *shape), and `done.bin` (rows,), 1 for rows that are computed.

    Attributes:
        shape: of one row as stored, channels last: (channels,), (height, width, channels), or (2, height, ...).
    """

    folder: Path
    rows: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return self.rows * int(np.prod(self.shape)) * np.dtype(STORED_AS[self.dtype]).itemsize

    def create(self) -> None:
        """Create both as sparse files, unless they exist; rows take disk space once written."""
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


FilesByCut = dict[str, dict[str, ActivationFiles]]
"""Cut -> split -> files."""


class CachedActivations(Dataset):
    """Row i -> {"activation": at the cut, channels last, "label": int, "row": i}."""

    def __init__(self, files: ActivationFiles, labels: list[int]):
        self.files, self.labels = files, labels

    def __len__(self) -> int:
        return self.files.rows

    def __getitem__(self, row: int) -> dict:
        # Read and not memory-mapped: one disk request for a row, however cold it is.
        files, count = self.files, int(np.prod(self.files.shape))
        stored = np.dtype(STORED_AS[files.dtype])
        values = np.fromfile(files.folder / "values.bin", stored, count, offset=row * count * stored.itemsize)
        activation = torch.from_numpy(values.reshape(files.shape)).view(files.dtype)
        return {"activation": activation, "label": self.labels[row], "row": row}


class TrunkCache:
    """All caches of one run.

    Args:
        folder: shared by all processes.
        batch_size: images in a forward pass of one process.
        stop: called between batches; True if the run was asked to stop.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        batch_size: int = 16,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.folder, self.accelerator, self.precision = Path(folder), accelerator, accelerator.mixed_precision
        self.batch_size, self.stop = batch_size, stop
        self.seconds = 0.0  # spent on filling so far

    def open(
        self, model: nn.Module, images: dict[str, KneeImages], fingerprints: dict[str, str], cuts: list[str]
    ) -> dict[str, dict[str, CachedActivations]]:
        """Activations of every split at every cut. Missing ones are computed, in one forward pass for each image.

        Args:
            model: the full network; the layers in front of the last cut must not change while the caches are in use.
            images: by split.
            fingerprints: of each split's content.
            cuts: steps of `koa_hf.network.xception.STEPS`.

        Returns:
            Cut -> split -> activations.

        Raises:
            KoaError: not enough disk space.
            SystemExit: code 143, the run was asked to stop.
        """
        size = next(iter(images.values())).preprocessing.image_size
        weights = {cut: xception.fingerprint(model, before=cut) for cut in cuts}
        trunks = candidate_trunks(model, cuts, self.accelerator, sum(map(len, images.values())), size)
        candidates = [self._files(trunk, weights, images, fingerprints) for trunk in trunks]
        number = self._choice(trunks, candidates, size)
        trunk, files = trunks[number], candidates[number]
        every = [one for at_cut in files.values() for one in at_cut.values()]
        self._check_disk(every)
        if self.accelerator.is_main_process:
            for one in every:
                one.create()
        self.accelerator.wait_for_everyone()
        for split in images:
            self._fill(trunk, images[split], {cut: files[cut][split] for cut in trunk.cuts}, split)
        self.accelerator.wait_for_everyone()
        return {
            cut: {split: CachedActivations(files[cut][split], images[split].split["label"][:]) for split in images}
            for cut in cuts
        }

    def remove(self) -> None:
        """Delete all caches, once no process uses them."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _choice(self, trunks: list[AnyTrunk], candidates: list[FilesByCut], size: int) -> int:
        """Index of the trunk that the cache was begun with, else of the fastest; the same in all processes."""
        begun = [
            any(one.folder.exists() for at_cut in files.values() for one in at_cut.values()) for files in candidates
        ]
        [number] = broadcast_object_list([begun.index(True) if any(begun) else None])
        if number is None and len(trunks) > 1:
            seconds = self._seconds(trunks, size)
            [number] = broadcast_object_list([seconds.index(min(seconds))])
            for trunk, taken in zip(trunks, seconds, strict=True):
                self.accelerator.print(f"trunk by {trunk.engine}: {1000 * taken / self.batch_size:.0f} ms per image")
        return number or 0

    def _seconds(self, trunks: list[AnyTrunk], size: int) -> list[float]:
        """Shortest time of each for a batch; measured in turns, so that a busy moment of the machine meets all."""
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

    def _files(
        self, trunk: AnyTrunk, weights: dict[str, str], images: dict[str, KneeImages], fingerprints: dict[str, str]
    ) -> FilesByCut:
        size = next(iter(images.values())).preprocessing.image_size
        example = self._forward(trunk, torch.zeros(1, size, size, dtype=torch.uint8))
        files: FilesByCut = {}
        for cut in trunk.cuts:
            files[cut] = {}
            for split, rows in images.items():
                shape, dtype = tuple(example[cut].shape[1:]), example[cut].dtype
                parts = [weights[cut], fingerprints[split], size, cut, self.precision, trunk.engine, str(dtype)]
                key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
                files[cut][split] = ActivationFiles(self.folder / f"{split}-{cut}-{key}", len(rows), shape, dtype)
        return files

    def _check_disk(self, files: list[ActivationFiles]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = sum(one.bytes for one in files if not (one.folder / "done.bin").exists())
        free = shutil.disk_usage(self.folder).free
        if needed:
            self.accelerator.print(f"trunk cache: {needed / 1e9:.2f} GB in {self.folder} ({free / 1e9:.1f} GB free)")
        if needed > 0.95 * free:
            raise KoaError(
                f"the trunk cache needs {needed / 1e9:.2f} GB, but {self.folder} has {free / 1e9:.2f} GB free; "
                "choose a larger disk with --cache-dir, or train without the cache with --no-cache."
            )

    def _fill(self, trunk: AnyTrunk, images: KneeImages, files: dict[str, ActivationFiles], split: str) -> None:
        """Compute the missing rows of a split at all cuts."""
        # Read before any process writes, so that all divide the same rows among themselves.
        missing = np.flatnonzero(np.min([one.done("r") for one in files.values()], axis=0) == 0)
        self.accelerator.wait_for_everyone()
        if not len(missing):
            return
        mine = missing[self.accelerator.process_index :: self.accelerator.num_processes]
        values = {cut: one.values("r+") for cut, one in files.items()}
        done = {cut: one.done("r+") for cut, one in files.items()}
        loader = DataLoader(Subset(images, mine.tolist()), self.batch_size)
        began = time.perf_counter()
        with progress_bar(f"trunk, {split}", len(mine), self.accelerator.is_main_process) as advance:
            for batch in loader:
                if self.stop():
                    raise SystemExit(143)  # computed rows are kept
                rows = batch["row"].numpy()
                for cut, activation in self._forward(trunk, batch["pixels"]).items():
                    if activation.dtype == torch.bfloat16:
                        activation = activation.view(torch.int16)
                    values[cut][rows] = activation.cpu().numpy()
                    done[cut][rows] = 1
                advance(len(rows))
        self.seconds += time.perf_counter() - began
