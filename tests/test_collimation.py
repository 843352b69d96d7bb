import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from koa_hf.imaging import phantom
from koa_hf.imaging.collimation import trim


def film(
    border: float, noise: float = 0, left: int = 120, top: int = 80, right: int = 60, bottom: int = 90
) -> np.ndarray:
    """A drawn knee, 224 x 224, with a border of grey level `border` and noise of that standard deviation."""
    knee = phantom.draw_knee(2, seed=0)
    grey = np.pad(knee.astype(float), ((top, bottom), (left, right)), constant_values=border)
    return np.clip(grey + noise * np.random.default_rng(0).standard_normal(grey.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0, 2])
@pytest.mark.parametrize("border", [0, 255, 140])
def test_a_wide_border_is_cut_off_to_the_pixel(border, noise):
    trimmed, box = trim(film(border, noise))
    assert np.abs(np.subtract(box, (120, 80, 344, 304))).max() <= 2
    assert trimmed.shape == (box[3] - box[1], box[2] - box[0])


def test_a_border_with_letters_in_it_is_cut_off():
    marked = Image.fromarray(film(0))
    ImageDraw.Draw(marked).text((330, 20), "R", fill=255, font_size=40)
    ImageDraw.Draw(marked).text((20, 340), "weight bearing", fill=255, font_size=14)
    assert trim(np.asarray(marked))[1] == (120, 80, 344, 304)


def test_a_border_within_a_border_is_cut_off():
    framed = np.pad(film(0), 4, constant_values=255)
    assert trim(framed)[1] == (124, 84, 348, 308)


def test_a_jpeg_of_a_film_loses_its_border_too():
    image = Image.fromarray(film(0, noise=1))
    image.save(buffer := io.BytesIO(), "JPEG", quality=60)
    assert np.abs(np.subtract(trim(np.asarray(Image.open(buffer)))[1], (120, 80, 344, 304))).max() <= 4


@pytest.mark.parametrize("seed", range(10))
def test_a_crop_without_a_border_stays_as_it_is(seed):
    knee = phantom.draw_knee(seed % 5, seed)
    trimmed, box = trim(knee)
    assert box == (0, 0, 224, 224)
    assert trimmed is knee or np.shares_memory(trimmed, knee)


def test_a_narrow_strip_of_air_stays():
    knee = phantom.draw_knee(2, seed=0).copy()
    knee[:, :18] = 0
    assert trim(knee)[1] == (0, 0, 224, 224)


def test_two_knees_with_air_between_them_stay_together():
    knee = phantom.draw_knee(1, seed=3)
    both = np.hstack([knee, np.zeros((224, 200), np.uint8), knee[:, ::-1]])
    assert trim(both)[1] == (0, 0, 648, 224)


def test_letters_at_the_edge_do_not_end_a_border():
    knee = phantom.draw_knee(2, seed=0)
    marked = np.pad(knee, ((100, 0), (0, 0)))
    marked[5:30, :120] = 255  # half of these lines are letters, and an eighth of the border
    assert trim(marked)[1] == (0, 100, 224, 324)


@pytest.mark.parametrize(
    "grey", [np.zeros((300, 300), np.uint8), np.full((1, 1), 7, np.uint8), np.eye(9, dtype=np.uint8)]
)
def test_what_is_all_border_stays_as_it_is(grey):
    assert trim(grey)[1] == (0, 0, grey.shape[1], grey.shape[0])


def test_the_crops_of_the_release_stay_as_they_are(real_data):
    crops = sorted(real_data.glob("*/[0-4]/*.png"))
    assert [crop for crop in crops[::20] if trim(np.asarray(Image.open(crop)))[1] != (0, 0, 224, 224)] == []
