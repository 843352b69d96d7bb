import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from koa_hf.grading import heatmap
from koa_hf.grading.grader import class_activation_map
from koa_hf.imaging import phantom
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.network import xception


@pytest.fixture(scope="module")
def network(model_folder):
    """The network, one drawn knee as its input, and its class activation map (5, h, w) with the logits (5,)."""
    model, preprocess = xception.load_model(model_folder)
    image = preprocess(Radiograph(phantom.draw_knee(2, seed=7), "drawn knee")).unsqueeze(0)
    with torch.inference_mode():
        features = model.forward_features(image)
        return model, image, class_activation_map(features, model.fc)[0], model.forward_head(features)[0]


def test_a_map_adds_up_to_its_logit(network):
    model, _, contributions, logits = network
    assert contributions.dtype == torch.float32
    torch.testing.assert_close(contributions.mean((1, 2)) + model.fc.bias, logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_map_is_what_grad_cam_finds_with_a_backward_pass(network, rank):
    model, image, contributions, _ = network
    grade = contributions.amax((1, 2)).argsort(descending=True)[rank].item()  # Grad-CAM shows evidence for a grade only
    with GradCAM(model, [model.act4]) as grad_cam:
        expected = grad_cam(image, [ClassifierOutputTarget(grade)])[0]
    # The library enlarges and stretches to 0..1, then stretches the mean over its layers (here one) again.
    ours = heatmap.for_grade(contributions.numpy(), grade)[None]
    ours = scale_cam_image(scale_cam_image(ours, image.shape[-2:]))[0]
    assert expected.max() > 0.99
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_evidence_for_a_grade_runs_from_0_to_1_and_evidence_against_it_counts_as_none():
    contributions = np.zeros((5, 2, 2), np.float32)
    contributions[3] = [[-4, 0], [1, 2]]
    contributions[4] = -1
    np.testing.assert_array_equal(heatmap.for_grade(contributions, 3), [[0, 0], [0.5, 1]])
    np.testing.assert_array_equal(heatmap.for_grade(contributions, 4), np.zeros((2, 2)))


def test_an_enlarged_map_stays_in_its_place_and_between_0_and_1():
    evidence = np.zeros((4, 4), np.float32)
    evidence[0, 3] = 1
    enlarged = heatmap.upsample(evidence, height=80, width=40)
    assert enlarged.shape == (80, 40)
    assert (enlarged.min(), enlarged.max()) == (0, 1)
    row, column = np.unravel_index(enlarged.argmax(), enlarged.shape)
    assert row < 20
    assert column >= 30


def test_the_overlay_leaves_the_x_ray_alone_where_nothing_was_seen_or_opacity_is_0():
    pixels = phantom.draw_knee(1, seed=0)
    evidence = np.zeros((4, 4), np.float32)
    evidence[0, 0] = 1
    grey = np.repeat(pixels[..., None], 3, axis=2)
    painted = heatmap.overlay(pixels, evidence, opacity=0.8)
    np.testing.assert_array_equal(painted[112:, 112:], grey[112:, 112:])
    assert (painted[:20, :20] != grey[:20, :20]).any()
    np.testing.assert_array_equal(heatmap.overlay(pixels, evidence, opacity=0), grey)
    np.testing.assert_array_equal(heatmap.overlay(pixels, evidence, 1)[0, 0], heatmap.colour(np.ones((1, 1)))[0, 0, :3])
