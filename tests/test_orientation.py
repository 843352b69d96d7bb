"""Telling upright knees from upside-down ones."""

import numpy as np
import pytest
from PIL import Image

from koa_hf.imaging import phantom
from koa_hf.imaging.orientation import is_upside_down, score


@pytest.mark.parametrize("grade", range(5))
def test_a_drawn_knee_is_upright_and_the_same_turned_is_upside_down_also_as_a_negative(grade):
    for seed in range(4):
        upright = phantom.draw_knee(grade, seed=seed)
        turned = upright[::-1, ::-1]
        for knee in (upright, 255 - upright, upright[:, ::-1]):
            assert not is_upside_down(np.ascontiguousarray(knee))
        assert is_upside_down(np.ascontiguousarray(turned))
        assert is_upside_down(np.ascontiguousarray(255 - turned))


def test_turning_an_x_ray_changes_the_sign_of_its_score():
    knee = phantom.draw_knee(2, seed=1)
    assert score(np.ascontiguousarray(knee[::-1, ::-1])) == pytest.approx(-score(knee), abs=1e-3)


def test_what_shows_nothing_is_left_as_it_is():
    noise = np.random.default_rng(0).integers(0, 256, (300, 200), np.uint8)
    for image in (np.zeros((224, 224), np.uint8), noise, np.full((1, 1), 7, np.uint8)):
        assert not is_upside_down(image)


def test_real_knees_are_told_upright_and_turned(real_data):
    for file in sorted(real_data.glob("val/*/*.png"))[::20]:
        knee = np.asarray(Image.open(file).convert("L"))
        assert not is_upside_down(knee)
        assert is_upside_down(np.ascontiguousarray(knee[::-1, ::-1]))
