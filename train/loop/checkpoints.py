"""Exact resume: the state of a run, its checkpoints, and the signal that asks it to stop."""

import shutil
import signal
import time
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from koa_hf.network import xception
from train.loop.history import History

KEPT = 2  # the newest may be incomplete if the machine dies while it is written


class RunState:
    """Position of a run, in a checkpoint beside weights, optimiser and random states.

    Attributes:
        stage: index in the recipe's stages.
        epoch: within the stage, from 0.
        batch: micro-batches done in the epoch.
        average: the stage's averaged weights (EMA), if it has any.
    """

    def __init__(self):
        self.stage = self.epoch = self.batch = 0
        self.average: nn.Module | None = None
        self._seconds, self._since = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Spent on this epoch, without the time between a kill and the resume."""
        return self._seconds + time.perf_counter() - self._since

    def start_clock(self) -> None:
        self._since = time.perf_counter()

    def next_epoch(self) -> None:
        self.epoch, self.batch = self.epoch + 1, 0
        self._seconds, self._since = 0.0, time.perf_counter()

    def next_stage(self) -> None:
        self.stage, self.epoch, self.average = self.stage + 1, 0, None

    def state_dict(self) -> dict:
        average = None if self.average is None else self.average.state_dict()
        position = {"stage": self.stage, "epoch": self.epoch, "batch": self.batch, "seconds": self.seconds}
        return {**position, "average": average}

    def load_state_dict(self, state: dict) -> None:
        self.stage, self.epoch, self.batch, self._seconds = (state[k] for k in ("stage", "epoch", "batch", "seconds"))
        if self.average is not None:
            self.average.load_state_dict(state["average"])


class StopRequest:
    """True once SIGTERM has arrived: the run then writes a checkpoint and ends."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator, self.arrived = accelerator, False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_) -> None:
        self.arrived = True

    def __call__(self) -> bool:
        return self.arrived

    def on_any_rank(self) -> bool:
        """True if any rank was asked to stop. Skips the collective on a single process."""
        if self.accelerator.num_processes == 1:
            return self.arrived
        if self.arrived:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()


class Checkpoints:
    """Working files of a run: checkpoints named by position, the weights each stage began with, the best weights.

    Args:
        out: the output folder.
        resume: continue from the newest checkpoint, if there is one.
    """

    def __init__(self, out: Path, accelerator: Accelerator, state: RunState, history: History, resume: bool):
        self.folder, self.weights = out / "checkpoints", out / "state"
        self.out, self.accelerator, self.state = out, accelerator, state
        self.best_weights = self.weights / "best.safetensors"
        accelerator.register_for_checkpointing(state, history)
        self.to_load = next(reversed(self._all()), None) if resume else None
        if self.resuming:  # the stage decides what is built before the rest can be loaded
            state.stage = int(self.to_load.name.split("-")[1])

    @property
    def resuming(self) -> bool:
        """True until the checkpoint to resume from is loaded."""
        return self.to_load is not None

    def begin_stage(self, model: nn.Module) -> None:
        """Save the weights that the stage starts from; load them instead if the run is resumed in this stage."""
        path = self.weights / f"stage-{self.state.stage:02d}.safetensors"
        if self.resuming:
            xception.load_weights(model, path)
        elif self.accelerator.is_main_process:
            xception.save_weights(model, path)

    def load(self, stage_name: str) -> None:
        """Load the checkpoint to resume from into what `Accelerator.prepare` returned. Later calls do nothing."""
        if not self.resuming:
            return
        self.accelerator.load_state(str(self.to_load))
        self.to_load, at = None, self.state
        self.accelerator.print(f"resumed: stage {stage_name}, epoch {at.epoch + 1}, batch {at.batch}")

    def save(self) -> None:
        """Write a checkpoint; it appears whole or not at all."""
        at = self.state
        final = self.folder / f"stage-{at.stage:02d}-epoch-{at.epoch:04d}-batch-{at.batch:07d}"
        partial = self.folder / f"partial-{final.name}"
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            if final.exists():  # written by the run that this one resumes
                shutil.rmtree(final)
            partial.rename(final)
            for old in [*self._all()[:-KEPT], *self.folder.glob("partial-*")]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def save_if_due(self, every: int, stop: StopRequest) -> None:
        """Write a checkpoint every so many micro-batches, and before ending on request.

        Raises:
            SystemExit: code 143, the run was asked to stop.
        """
        stopped = stop.on_any_rank()
        if stopped or self.state.batch % every == 0:
            self.save()
        if stopped:
            self.accelerator.print(f"stopped on request; continue with --resume (checkpoint in {self.out})")
            raise SystemExit(143)

    def save_best(self, model: nn.Module) -> None:
        """Keep the current weights, averaged where the stage averages, as the run's best."""
        if self.accelerator.is_main_process:
            average = None if self.state.average is None else self.state.average.module.state_dict()
            xception.save_weights(model, self.best_weights, average)

    def remove(self) -> None:
        """Delete all working files of a finished run."""
        for folder in (self.folder, self.weights):
            shutil.rmtree(folder)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("stage-*"))
