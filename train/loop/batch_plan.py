"""Position of a micro-batch in the epoch, so that processes, accumulation and resuming don't change the result."""

import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from train.loop.augment import Draws, Mixture


@dataclass(frozen=True)
class BatchPlan:
    """Division of an epoch into updates, micro-batches and processes.

    An update is one optimiser step on `batch_size` images. It is computed in `accumulate` micro-batches, and every
    micro-batch is split over the processes. Micro-batches are numbered through the epoch, from 0.

    Attributes:
        images: training images in an epoch.
        seed: the recipe's.
    """

    images: int
    batch_size: int
    accumulate: int
    seed: int
    accelerator: Accelerator

    @property
    def micro_batch(self) -> int:
        """Images of a micro-batch, over all processes."""
        return self.batch_size // self.accumulate

    @property
    def updates(self) -> int:
        """Optimiser steps in an epoch."""
        return math.ceil(self.images / self.batch_size)

    def real_rows(self, number: int, rows: int) -> torch.Tensor:
        """Mask of this process's rows, bool (rows,). False: repeated by Accelerate to fill up the last micro-batch."""
        in_batch = min(self.micro_batch, self.images - number * self.micro_batch)
        first = self.accelerator.process_index * rows
        return first + torch.arange(rows, device=self.accelerator.device) < in_batch

    def mean_over_update(self, losses: torch.Tensor, number: int) -> torch.Tensor:
        """Losses float (rows,) -> this process's part of the mean loss over the images of an update."""
        update = number // self.accumulate
        in_update = min(self.batch_size, self.images - update * self.batch_size)
        # `Accelerator.backward` divides by the micro-batches and DDP by the processes; both are undone here.
        return losses.sum() / in_update * (self.accelerator.num_processes * self.accumulate)

    def seed_step(self, epoch: int, number: int, rows: int) -> Draws:
        """Seed this process's dropout; returns its random numbers for augmentation, the same over any processes.

        Seeded by position: a resumed run, whose loaders draw differently, gets the same random numbers.

        Args:
            epoch: counted over all stages, from 0.
            rows: of this process in the micro-batch.
        """
        seed = (self.seed * 10_000 + epoch) * 1_000_000 + number
        torch.manual_seed(seed * 1_000 + self.accelerator.process_index)
        first = self.accelerator.process_index * rows
        # Drawn for a full micro-batch: the last one has fewer rows, or repeated ones, by the number of processes.
        return Draws(seed, slice(first, first + rows), self.micro_batch, self.accelerator.device)

    def mixture(self, alpha: float, draws: Draws, number: int) -> Mixture | None:
        """Pairs of this process's rows to blend; None without mixup, and in a last micro-batch that isn't full.

        In a full one every process has an even number of rows (`check_settings`), so that pairs stay together.

        Args:
            alpha: the stage's `mixup`.
            draws: of this step.
        """
        if not alpha or (number + 1) * self.micro_batch > self.images:
            return None
        return draws.mixture(alpha)
