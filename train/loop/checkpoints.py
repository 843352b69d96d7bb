"""What lets a run be killed anywhere and go on: progress, checkpoints, and the signal that asks it to end."""

import json
import shutil
import signal
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

KEPT = 2  # the newest may be the one being written when the machine dies


class Progress:
    """How far a run is: what a checkpoint keeps beside weights, optimiser and random states."""

    def __init__(self):
        self.stage = 0
        self.epoch = 0  # within the stage
        self.batch = 0  # within the epoch
        self.seconds = 0.0  # spent on this epoch before the run was interrupted
        self.seen: list[dict[str, torch.Tensor]] = []  # loss, logits and label of this epoch's images so far
        self.history: list[dict] = []  # one row an epoch, all stages
        self.best: float | None = None
        self.average: nn.Module | None = None  # the stage's averaged weights, where the recipe asks for them

    def state_dict(self) -> dict:
        # As JSON, because torch.load reads tensors and plain values only.
        average = None if self.average is None else self.average.state_dict()
        return {**self.__dict__, "history": json.dumps(self.history), "average": average}

    def load_state_dict(self, state: dict) -> None:
        average = self.average
        if average is not None:
            average.load_state_dict(state["average"])
        self.__dict__.update({**state, "history": json.loads(state["history"]), "average": average})

    def next_epoch(self) -> None:
        self.epoch, self.batch, self.seconds, self.seen = self.epoch + 1, 0, 0.0, []

    def next_stage(self) -> None:
        self.stage, self.epoch, self.best = self.stage + 1, 0, None


class Checkpoints:
    """Checkpoints of one run, named by how far it was; each appears whole or not at all."""

    def __init__(self, folder: Path, accelerator: Accelerator, progress: Progress):
        self.folder, self.accelerator, self.progress = Path(folder), accelerator, progress
        accelerator.register_for_checkpointing(progress)

    def all(self) -> list[Path]:
        return sorted(self.folder.glob("stage-*"))

    def latest(self) -> Path | None:
        return next(reversed(self.all()), None)

    @staticmethod
    def stage_of(checkpoint: Path) -> int:
        return int(checkpoint.name.split("-")[1])

    def save(self) -> None:
        at = self.progress
        final = self.folder / f"stage-{at.stage:02d}-epoch-{at.epoch:04d}-batch-{at.batch:07d}"
        partial = self.folder / f"partial-{final.name}"
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            if final.exists():  # written by the run that this one resumes
                shutil.rmtree(final)
            partial.rename(final)
            for old in [*self.all()[:-KEPT], *self.folder.glob("partial-*")]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()


class StopRequest:
    """True once SIGTERM has arrived: the run then leaves a checkpoint and ends."""

    def __init__(self):
        self.arrived = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_) -> None:
        self.arrived = True

    def __call__(self) -> bool:
        return self.arrived
