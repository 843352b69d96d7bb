import math

import pytest
import torch

from koa_hf.network.losses import cross_entropy, distillation, focal, soft_ordinal


def test_focal_loss_is_keras_categorical_focal_cross_entropy():
    # alpha (1 - p)^gamma (-log p) by hand for p = 0.5 and p = 0.8
    logits = torch.log(torch.tensor([[0.5, 0.5 - 3e-7, 1e-7, 1e-7, 1e-7], [0.05, 0.05, 0.05, 0.05, 0.8]]))
    expected = [0.25 * 0.5**2 * -math.log(0.5), 0.25 * 0.2**2 * -math.log(0.8)]
    assert focal(logits, torch.tensor([0, 4])).tolist() == pytest.approx(expected, rel=1e-4)


def test_focal_loss_without_focus_is_scaled_cross_entropy():
    logits, labels = torch.randn(8, 5), torch.arange(8) % 5
    assert torch.allclose(focal(logits, labels, alpha=0.5, gamma=0), 0.5 * cross_entropy(logits, labels))


def test_soft_ordinal_loss_punishes_a_near_miss_less_than_a_far_one():
    sure = 6 * torch.eye(5)[[1, 4]]  # two predictions for a knee of grade 0
    near, far = soft_ordinal(sure, torch.tensor([0, 0]))
    assert near < far
    logits, labels = torch.randn(8, 5), torch.arange(8) % 5
    assert torch.allclose(soft_ordinal(logits, labels, width=1e-3), cross_entropy(logits, labels))


def test_distillation_is_least_where_the_teacher_is_met_and_hard_targets_are_cross_entropy():
    teacher, other = torch.randn(8, 5), torch.randn(8, 5)
    assert (distillation(teacher, teacher) <= distillation(other, teacher)).all()
    labels = torch.arange(8) % 5
    sure = 100 * torch.nn.functional.one_hot(labels, 5)
    assert torch.allclose(distillation(other, sure), cross_entropy(other, labels), atol=1e-5)
