"""Optimiser, learning-rate schedule, weight average, class weights and criterion of a stage."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from koa_hf.grades import NUM_GRADES
from koa_hf.network import losses, xception
from train.loop.augment import Mixture
from train.loop.recipe import Stage

Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits float (batch, 5), grades int64 (batch,) -> loss float32 (batch,)."""

TrainLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Mixture | None], torch.Tensor]
"""Logits, grades, rows of the training split int64 (batch,), mixture -> loss float32 (batch,)."""


def make_optimizer(tail: nn.Module, stage: Stage, updates_an_epoch: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Optimiser over the trainable parameters, one group for each depth, head first; and its schedule by update."""
    by_depth: dict[int, list[nn.Parameter]] = {}
    for name, parameter in tail.named_parameters():
        if parameter.requires_grad:
            by_depth.setdefault(xception.depth_from_head(name), []).append(parameter)
    groups = [
        {"params": group, "lr": stage.lr * (stage.layer_lr_decay**depth if depth else stage.head_lr_factor)}
        for depth, group in sorted(by_depth.items())
    ]
    if stage.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, stage.lr, momentum=0.9, weight_decay=stage.weight_decay, nesterov=True)
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[stage.optimizer]
        optimizer = kind(groups, stage.lr, weight_decay=stage.weight_decay, fused=True)
    updates = stage.epochs * updates_an_epoch
    warmup = max(1, round(stage.warmup * updates))

    def factor(update: int) -> float:
        if update < warmup and stage.warmup:
            return (update + 1) / warmup
        if stage.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (update - warmup) / max(1, updates - warmup))))
        return 1.0

    return optimizer, LambdaLR(optimizer, factor)


def make_weight_average(tail: nn.Module, stage: Stage) -> AveragedModel | None:
    """Exponential moving average (EMA) of weights and running statistics; None where the stage has no `ema`.

    The decay warms up as TensorFlow's ExponentialMovingAverage does with `num_updates`.
    """
    if not stage.ema:
        return None
    average = AveragedModel(tail, use_buffers=True)

    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], _count: torch.Tensor) -> None:
        updates = int(average.n_averaged)  # a buffer on the CPU: no wait for the device
        get_ema_multi_avg_fn(min(stage.ema, (1 + updates) / (10 + updates)))(averaged, current, _count)

    average.multi_avg_fn = update
    return average


def class_weights(stage: Stage, labels: list[int]) -> torch.Tensor:
    """Factor on the training loss for each grade, float32 (5,); balanced ones have mean 1 over the images."""
    counts = torch.bincount(torch.tensor(labels), minlength=NUM_GRADES).float()
    if stage.class_weights == "none":
        return torch.ones(NUM_GRADES)
    return torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts.clamp(min=1)), 0.0)


def make_criterion(stage: Stage) -> Criterion:
    """The stage's loss, one value for each image."""
    if stage.loss == "soft_ordinal":
        return lambda logits, labels: losses.soft_ordinal(logits, labels, stage.ordinal_width)
    if stage.loss == "focal":
        return lambda logits, labels: losses.focal(logits, labels, stage.focal_alpha, stage.focal_gamma)
    return lambda logits, labels: losses.cross_entropy(logits, labels, stage.label_smoothing)


def make_train_loss(stage: Stage, criterion: Criterion, teacher: torch.Tensor | None) -> TrainLoss:
    """The criterion, and the share of it that distillation takes towards the teacher logits, float (images, 5)."""

    def train_loss(logits: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, mixture: Mixture | None):
        def towards(chosen: torch.Tensor) -> torch.Tensor:
            loss = criterion(logits, labels[chosen])
            if not stage.distillation:
                return loss
            return torch.lerp(loss, losses.distillation(logits, teacher[rows[chosen]]), stage.distillation)

        return towards(torch.arange(len(labels), device=labels.device)) if mixture is None else mixture.loss(towards)

    return train_loss
