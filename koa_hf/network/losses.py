"""Losses over KL logits. Each returns one value per image; the caller averages."""

import torch
from torch.nn import functional


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Categorical cross-entropy: logits float (batch, 5), labels int64 (batch,) -> float32 (batch,), 0 and up."""
    return functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=label_smoothing)


def soft_ordinal(logits: torch.Tensor, labels: torch.Tensor, width: float = 0.5) -> torch.Tensor:
    """Cross-entropy with soft ordinal targets, softmax over i of -(i - label)^2 / width.

    Neighbouring grades cost less than distant ones. Diaz and Marathe 2019 (CVPR), "Soft Labels for Ordinal Regression",
    with the squared distance.

    Args:
        logits: float (batch, 5).
        labels: int64 (batch,).
        width: in squared grades; the target becomes one-hot towards 0.

    Returns:
        float32 (batch,), 0 and up; its minimum is the target's entropy.
    """
    grades = torch.arange(logits.shape[1], device=logits.device)
    target = functional.softmax(-((grades - labels[:, None]) ** 2).float() / width, dim=1)
    return functional.cross_entropy(logits.float(), target, reduction="none")


def focal(logits: torch.Tensor, labels: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0) -> torch.Tensor:
    """Categorical focal cross-entropy as in Keras: alpha (1 - p)^gamma (-log p), p of the true grade.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002; keras.losses.CategoricalFocalCrossentropy. `alpha` scales all
    grades alike, so it only scales the loss.

    Args:
        logits: float (batch, 5).
        labels: int64 (batch,).

    Returns:
        float32 (batch,), 0 and up.
    """
    log_p = functional.log_softmax(logits.float(), dim=1).gather(1, labels[:, None]).squeeze(1)
    return alpha * (1 - log_p.exp()) ** gamma * -log_p


def distillation(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with a teacher's probabilities (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).

    Args:
        logits: float (batch, 5).
        teacher: float (batch, 5), teacher logits.

    Returns:
        float32 (batch,), 0 and up; its minimum is the entropy of the teacher's probabilities.
    """
    return functional.cross_entropy(logits.float(), teacher.float().softmax(1), reduction="none")
