import numpy as np
import pytest
from PIL import Image

from koa_hf.imaging import phantom, radiograph
from koa_hf.imaging.polarity import is_negative, polarity


@pytest.mark.parametrize("grade", range(5))
@pytest.mark.parametrize("side", ["left", "right"])
def test_bone_bright_and_bone_dark_are_told_apart(grade, side):
    for seed in range(5):
        pixels = phantom.draw_knee(grade, seed, side)
        assert polarity(pixels) > 0.4
        assert is_negative(255 - pixels)


def test_exposure_does_not_matter_and_inversion_only_changes_the_sign():
    pixels = phantom.draw_knee(1, seed=2)
    dark = (pixels / 255.0) ** 2 * 100
    assert polarity(dark.astype(np.uint8)) == pytest.approx(polarity(pixels), abs=0.05)
    assert polarity(255 - pixels) == pytest.approx(-polarity(pixels), abs=1e-6)


@pytest.mark.parametrize("frame", [0, 255])
@pytest.mark.parametrize("width", [((30, 30), (0, 0)), ((0, 0), (30, 30)), ((40, 40), (40, 40))])
def test_a_black_or_white_collimation_border_does_not_mislead(frame, width):
    pixels = phantom.draw_knee(2, seed=1)
    assert not is_negative(np.pad(pixels, width, constant_values=frame))
    assert is_negative(np.pad(255 - pixels, width, constant_values=frame))


def test_a_glaring_screw_does_not_mislead():
    negative = 255 - phantom.draw_knee(3, seed=4)
    negative[180:200, 60:170] = 255
    assert is_negative(negative)


def test_a_blank_image_is_no_negative():
    assert not is_negative(np.zeros((224, 224), np.uint8))


def test_any_size_and_shape_will_do():
    tall = Image.fromarray(phantom.draw_knee(0, seed=0)).resize((300, 700))
    assert not is_negative(np.asarray(tall))
    assert is_negative(255 - np.asarray(tall))


def test_the_negatives_of_the_release_are_found_and_nothing_else(real_data):
    scores = sorted(polarity(radiograph.read(file).pixels) for file in real_data.glob("val/*/*.png"))
    assert len(scores) == 826
    assert scores[13] < -0.5
    assert scores[14] > 0.4
