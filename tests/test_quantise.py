"""int8: what is done to the network before it, and the guard that it has to pass."""

import numpy as np
import pytest
import torch

from koa_hf import Grader, xception
from train import quantise, recipe

SIZE = 71
IMAGES = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
HOW = recipe.Grading(flip_average=False)


@pytest.fixture(scope="module")
def grader(model_folder) -> Grader:
    return Grader.from_pretrained(model_folder, device="cpu", engine="torch")


@torch.inference_mode()
def test_evening_out_the_channels_leaves_the_function_as_it_is(grader):
    network = xception.folded(grader.model)
    before, weights = network(IMAGES), network.block5.rep[1].pointwise.weight.clone()
    quantise.equalise(network, IMAGES, 0.7)
    assert not torch.equal(network.block5.rep[1].pointwise.weight, weights)
    torch.testing.assert_close(network(IMAGES), before, rtol=1e-3, atol=1e-3)


def seen(grades: np.ndarray) -> quantise.Seen:
    return quantise.Seen(np.eye(5, dtype=np.float32)[grades] * 4, None)


def test_the_guard_passes_the_same_grades_and_fails_two_in_a_hundred_changed(grader):
    grades = np.arange(200) % 5
    same = quantise.judge(seen(grades), seen(grades), grades, grader, HOW)
    assert same["passes"]
    assert (same["grades_changed"], same["largest_probability_change"], same["familiarity_changed"]) == (0, 0, None)
    changed = grades.copy()
    changed[:4] = (changed[:4] + 1) % 5
    other = quantise.judge(seen(changed), seen(grades), grades, grader, HOW)
    assert other["grades_changed"] == 4
    assert not other["passes"]


def test_the_guard_fails_a_kappa_that_moved_though_few_grades_changed(grader):
    grades = np.arange(200) % 5
    changed = grades.copy()
    changed[0] = 4  # from KL 0
    verdict = quantise.judge(seen(changed), seen(grades), grades, grader, HOW)
    assert verdict["grades_unchanged"] >= quantise.LEAST_UNCHANGED
    assert verdict["kappa_change"] < -quantise.LARGEST_KAPPA_CHANGE
    assert not verdict["passes"]


def test_what_stays_in_float_is_left_out_of_int8(grader):
    pytest.importorskip("nncf")
    how = quantise.Attempt(kept=quantise._through(7), equalised=0.7)
    model = quantise.quantised(xception.folded(grader.model), "block12", IMAGES, how)
    assert 0.3 < quantise.share_in_int8(model) < 0.5
    features, inner = quantise.compiled(model)(IMAGES)
    with torch.no_grad():
        expected, _ = xception.features(grader.model, IMAGES)
    assert inner.shape == (4, 1024)
    assert 0 < float((features - expected).abs().max()) < 0.2 * float(expected.abs().max())
    names = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]
    assert any("block8." in name for name in names)
    assert not any(f"block{i}." in name for name in names for i in range(1, 8))
