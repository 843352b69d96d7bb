"""Figures of every epoch: printed, logged to the tracker, written to metrics.jsonl; and the best of them."""

import json
from pathlib import Path

import torch
from accelerate import Accelerator

from koa_hf.files import write_text
from koa_hf.grading.metrics import HIGHER_IS_BETTER, grade_metrics
from train.loop.recipe import Recipe, Stage

SPLITS = ("train", "validation")


class History:
    """Rows of metrics.jsonl, one for each epoch of all stages. Part of every checkpoint.

    Args:
        path: of metrics.jsonl.
        plan: names the metric by which an epoch is the best.
    """

    def __init__(self, path: Path, plan: Recipe, accelerator: Accelerator):
        self.path, self.plan, self.accelerator = path, plan, accelerator
        self.rows: list[dict] = []
        self._best: float | None = None  # of the stage
        self._batches: list[dict[str, torch.Tensor]] = []  # of the epoch

    def add_batch(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, real: torch.Tensor) -> None:
        """Gather a training batch from all processes.

        Everything stays on the device until the epoch ends, since copying would wait for the GPU.

        Args:
            loss: float (batch,), before class weights.
            logits: float (batch, 5).
            labels: int64 (batch,).
            real: bool (batch,), False for rows that only fill up the last batch.
        """
        # Cloned, because a worker's labels lie in memory that it shares.
        batch = {"loss": loss.detach(), "logits": logits.detach(), "label": labels.clone(), "real": real}
        self._batches.append(self.accelerator.gather(batch))

    def end_epoch(
        self,
        stage: Stage,
        epoch: int,
        loss: torch.Tensor,
        logits: torch.Tensor,
        labels: torch.Tensor,
        lr: float,
        seconds: dict[str, float],
    ) -> bool:
        """Add an epoch's row.

        Args:
            epoch: within the stage, from 0.
            loss, logits, labels: of the validation images, on the CPU.
            lr: the learning rate of the head.
            seconds: of training and validation.

        Returns:
            True if the epoch is the stage's best so far and can become the model, which takes the full image size.
        """
        row = {
            "stage": stage.name,
            "epoch": epoch + 1,
            "train": self._training_figures(),
            "validation": _figures(loss, logits, labels),
            "lr": lr,
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
        }
        self._batches = []
        self.rows.append(row)
        self.accelerator.print(epoch_line(row))
        logged = {f"{split}/{name}": row[split][name] for split in SPLITS for name in ("loss", *HIGHER_IS_BETTER)}
        self.accelerator.log(logged, step=len(self.rows))
        if self.accelerator.is_main_process:
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
        if epoch == 0:
            self._best = None
        at_full_size = self.plan.size_in(stage, epoch) == self.plan.image_size
        if not (at_full_size and self._is_better(row)):
            return False
        self._best = row["validation"].get(self.plan.best_metric)
        return True

    def state_dict(self) -> dict:
        # Rows as JSON, because torch.load reads tensors and plain values only.
        return {"rows": json.dumps(self.rows), "best": self._best, "batches": self._batches}

    def load_state_dict(self, state: dict) -> None:
        self.rows, self._best, self._batches = json.loads(state["rows"]), state["best"], state["batches"]

    def _training_figures(self) -> dict:
        """Figures over the epoch's batches, by the weights that each batch met (as Keras prints them)."""
        epoch = {name: torch.cat([batch[name].cpu() for batch in self._batches]) for name in self._batches[0]}
        real = epoch["real"]
        return _figures(epoch["loss"][real], epoch["logits"][real], epoch["label"][real])

    def _is_better(self, row: dict) -> bool:
        metric = self.plan.best_metric
        if metric == "last" or self._best is None:
            return True
        value = row["validation"][metric]
        if value is None:
            return False
        return value > self._best if HIGHER_IS_BETTER.get(metric, False) else value < self._best


def _figures(loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> dict:
    return {"loss": float(loss.mean()), **grade_metrics(logits.softmax(1).numpy(), labels.numpy())}


def epoch_line(row: dict) -> str:
    """A row for the terminal: the paper's columns first, then the ordinal metrics."""
    train_figures, validation = row["train"], row["validation"]
    columns = {
        "loss": "loss",
        "acc": "accuracy",
        "prec": "keras_precision",
        "rec": "keras_recall",
        "auc": "keras_auc",
    }
    paper = " ".join(f"{name} {train_figures[key]:.4f}" for name, key in columns.items())
    kappa = validation["quadratic_weighted_kappa"]
    return (
        f"{row['stage']} {row['epoch']}: {paper} | val loss {validation['loss']:.4f} acc {validation['accuracy']:.4f} "
        f"qwk {float('nan') if kappa is None else kappa:.4f} mae {validation['mean_absolute_error']:.4f} "
        f"bal {validation['balanced_accuracy']:.4f} | {sum(row['seconds'].values()):.0f} s"
    )
