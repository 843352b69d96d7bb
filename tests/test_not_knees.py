import numpy as np
import pytest
from PIL import Image

from koa_hf.imaging import phantom
from train.fitting.familiarity_search import NARROWEST, as_uploaded
from train.pictures.not_knees import KINDS, images

PER_KIND = 5


@pytest.fixture(scope="module")
def knees() -> list[np.ndarray]:
    return [phantom.draw_knee(grade, seed=grade) for grade in range(3)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_as_many_different_greyscale_images_as_asked_for_and_the_same_again(kind, knees):
    pictures = images(kind, knees, 4)
    assert len(pictures) == 4
    assert all(pixels.dtype == np.uint8 and pixels.ndim == 2 and min(pixels.shape) > 50 for pixels in pictures)
    assert len({pixels.tobytes() for pixels in pictures[:3]}) == 3  # the fourth may show the first knee again
    for pixels, again in zip(pictures[:2], images(kind, knees, 2), strict=True):
        np.testing.assert_array_equal(pixels, again)


def test_another_seed_gives_other_images(knees):
    assert not np.array_equal(images("white noise", knees, 1, seed=0)[0], images("white noise", knees, 1, seed=1)[0])


def test_the_knees_are_left_as_they_are(knees):
    before = np.stack(knees)
    for kind in ("upside-down knee", "knee on its side", "part of a knee"):
        images(kind, knees, 1)[0][:] = 0
    np.testing.assert_array_equal(knees, before)


def test_an_upside_down_knee_is_the_knee_turned_by_180_degrees_and_every_knee_has_its_turn(knees):
    pictures = images("upside-down knee", knees, 2 * len(knees))
    turned = sorted(knee[::-1, ::-1].tobytes() for knee in knees)
    assert sorted(pixels.tobytes() for pixels in pictures[: len(knees)]) == turned
    assert sorted(pixels.tobytes() for pixels in pictures[len(knees) :]) == turned


def test_a_knee_on_its_side_is_turned_by_90_degrees_either_way(knees):
    clockwise, counterclockwise = images("knee on its side", knees[:1], 2)
    np.testing.assert_array_equal(clockwise, np.rot90(knees[0], -1))
    np.testing.assert_array_equal(counterclockwise, np.rot90(knees[0], 1))


def test_part_of_a_knee_fills_the_frame_that_the_knee_had():
    gradient = np.tile(np.arange(200, dtype=np.uint8), (150, 1))
    for pixels in images("part of a knee", [gradient], PER_KIND):
        assert pixels.shape == (150, 200)
        assert 0.2 < np.ptp(pixels.astype(int)) / 199 < 0.45


def test_two_knees_lie_side_by_side_and_a_knee_far_off_leaves_the_film_dark(knees):
    for pixels in images("two knees", knees, PER_KIND):
        columns = pixels.mean(axis=0)
        assert columns[len(columns) // 2] < 0.5 * min(
            columns[: len(columns) // 2].max(), columns[len(columns) // 2 :].max()
        )
    for pixels in images("knee far off", knees, PER_KIND):
        assert np.mean(pixels < 50) > 0.6


def test_a_misspelt_kind_and_missing_knees_are_errors(knees):
    with pytest.raises(ValueError, match=r"'photo'; it must be one of: photograph, .*knee on a screen"):
        images("photo", knees, 1)
    with pytest.raises(ValueError, match="knees is empty"):
        images("blank", [], 1)


def test_knees_as_uploaded_are_the_same_knees_in_other_sizes_frames_and_greys(knees):
    varied = as_uploaded(knees)
    assert len(varied) == len(knees)
    for knee, other in zip(knees, varied, strict=True):
        assert NARROWEST * 0.6 <= other.shape[1] <= knee.shape[1] * 1.1
        small = [
            np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BOX), float) for image in (knee, other)
        ]
        assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.8
    assert all(np.array_equal(one, other) for one, other in zip(varied, as_uploaded(knees), strict=True))
