from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from koa_hf.imaging import localiser, phantom
from koa_hf.imaging.radiograph import Radiograph
from train.pictures.composites import KINDS, Crop, compose

RIGHT, LEFT = phantom.draw_knee(2, 3, "right"), phantom.draw_knee(1, 4, "left")


def overlap(one, other) -> float:
    shared = np.prod([max(0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def find(pixels: np.ndarray, **says) -> tuple[localiser.KneeBox, ...]:
    return localiser.find_knees(Radiograph(pixels, "film", **says))


@pytest.fixture(scope="module")
def bilateral():
    """A film of two drawn knees, with the limbs continued."""
    knees = [Crop(RIGHT, "right"), Crop(LEFT, "left")]
    return compose("bilateral", knees, np.random.default_rng(1), size=200, varied=False)


@pytest.mark.parametrize("grade", range(5))
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_crop_is_left_as_it_is(grade, side):
    (knee,) = find(phantom.draw_knee(grade, seed=7, side=side))
    assert knee.whole
    assert knee.box == (0, 0, 224, 224)
    assert knee.side in (side, None)


def test_both_knees_are_found_with_their_sides(bilateral):
    knees = find(bilateral.pixels)
    assert [knee.side for knee in knees] == ["right", "left"]
    for knee, box in zip(knees, bilateral.boxes, strict=True):
        assert overlap(knee.box, box) > 0.7
        assert knee.box[2] - knee.box[0] == knee.box[3] - knee.box[1]
        assert not knee.whole
        assert 0.5 <= knee.score <= 1


def test_a_negative_has_the_same_knees(bilateral):
    bright, dark = find(bilateral.pixels), find(255 - bilateral.pixels)
    assert [knee.side for knee in dark] == [knee.side for knee in bright]
    for one, other in zip(bright, dark, strict=True):
        assert overlap(one.box, other.box) > 0.95


def test_an_upside_down_film_has_the_same_knees_where_they_are(bilateral):
    height, width = bilateral.pixels.shape
    upright, turned = find(bilateral.pixels), find(np.ascontiguousarray(bilateral.pixels[::-1, ::-1]))
    assert [knee.side for knee in turned] == [knee.side for knee in reversed(upright)]
    for one, other in zip(reversed(upright), turned, strict=True):
        left, top, right, bottom = one.box
        assert other.box == (width - right, height - bottom, width - left, height - top)
    (crop,), (as_turned,) = find(RIGHT), find(np.ascontiguousarray(RIGHT[::-1, ::-1]))
    assert as_turned == crop
    assert crop.whole


@pytest.mark.parametrize(("quarters", "direction"), [(1, "clockwise"), (3, "counter-clockwise")])
def test_a_film_that_lies_on_its_side_is_turned_and_said_to_be(bilateral, quarters, direction):
    film = Radiograph(np.ascontiguousarray(np.rot90(bilateral.pixels, quarters)), "film")
    turned, knees = localiser.find_upright(film)
    assert np.array_equal(turned.pixels, bilateral.pixels)
    assert knees == find(bilateral.pixels)
    assert f"turned by 90 degrees {direction}," in turned.notes[0]


def test_a_film_that_stands_upright_or_shows_nothing_is_not_turned(bilateral):
    for pixels in (bilateral.pixels, RIGHT, np.zeros((300, 200), np.uint8)):
        for upright in (pixels, np.ascontiguousarray(pixels[::-1, ::-1])):
            film = Radiograph(upright, "film")
            assert localiser.find_upright(film) == (film, find(upright))


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_resolution_does_not_matter(bilateral, scale):
    height, width = bilateral.pixels.shape
    resized = Image.fromarray(bilateral.pixels).resize((round(scale * width), round(scale * height)))
    for knee, box in zip(find(np.asarray(resized)), bilateral.boxes, strict=True):
        assert overlap(knee.box, scale * np.array(box)) > 0.65


@pytest.mark.parametrize("kind", ["strip", "strip of both", "full leg"])
def test_awkward_shapes(kind):
    knees = [Crop(RIGHT, "right")] if kind == "strip" else [Crop(RIGHT, "right"), Crop(LEFT, "left")]
    film = compose(kind, knees, np.random.default_rng(0), size=200, varied=False)
    found = find(film.pixels)
    assert len(found) == len(knees)
    for knee, box in zip(found, film.boxes, strict=True):
        assert overlap(knee.box, box) > 0.55


@pytest.mark.parametrize("level", [0, 255])
def test_a_crop_within_a_wide_border_is_cut_out_to_the_pixel(level):
    (knee,) = find(np.pad(RIGHT, ((90, 60), (120, 80)), constant_values=level))
    assert not knee.whole
    assert np.abs(np.subtract(knee.box, (120, 90, 344, 314))).max() <= 2


def test_what_the_file_says_of_the_side_is_believed_for_a_single_knee(bilateral):
    assert find(RIGHT, side="left")[0].side == "left"
    assert [knee.side for knee in find(bilateral.pixels, side="left")] == ["right", "left"]


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((300, 200), np.uint8),
        np.full((1, 1), 9, np.uint8),
        np.zeros((1, 5000), np.uint8),
        np.random.default_rng(0).integers(256, size=(2000, 30), dtype=np.uint8),
        np.random.default_rng(0).integers(256, size=(400, 500), dtype=np.uint8),
        np.tile(np.arange(256, dtype=np.uint8), (150, 1)),
    ],
    ids=["black", "one pixel", "line", "stripe", "noise", "gradient"],
)
def test_nothing_is_found_where_nothing_is(pixels):
    assert find(pixels) == ()


def test_a_cut_is_the_part_of_the_box_on_the_film_and_keeps_what_the_film_says():
    film = Radiograph(np.arange(12, dtype=np.uint8).reshape(3, 4), "film.dcm", "left", "AP", ("A note.",))
    part = localiser.crop(film, (2, 1, 6, 5))
    assert part.pixels.tolist() == [[6, 7], [10, 11]]
    assert (part.name, part.side, part.view, part.notes) == ("film.dcm", "left", "AP", ("A note.",))
    assert localiser.crop(film, (-1, -2, 5, 4)) is film
    for box in ((3, 0, 3, 2), (4, 0, 8, 4)):
        with pytest.raises(ValueError, match="nothing of a film of 4x3 pixels"):
            localiser.crop(film, box)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_composite_holds_the_crop_as_it_was(kind):
    both = kind in ("bilateral", "strip of both", "full leg")
    knees = [Crop(RIGHT, "right"), Crop(LEFT, "left")] if both else [Crop(RIGHT, "right")]
    film = compose(kind, knees, np.random.default_rng(2), size=224, varied=False)
    whole = Radiograph(film.pixels, "film")
    for knee, (left, top, right, bottom) in zip(knees, film.boxes, strict=True):
        shown = localiser.crop(whole, (left, max(top, 0), right, min(bottom, len(film.pixels)))).pixels
        expected = knee.pixels[max(-top, 0) : len(film.pixels) - top]
        assert np.array_equal(shown, expected)


@pytest.fixture(scope="module")
def released(real_data) -> list[tuple[Path, tuple[localiser.KneeBox, ...]]]:
    """Every eighth crop of the validation split, and the knees found in it."""
    crops = sorted(real_data.glob("val/[0-4]/*.png"))[::8]
    return [(crop, find(np.asarray(Image.open(crop)))) for crop in crops]


def test_the_crops_of_the_release_are_left_as_they_are(released):
    cut = [crop.name for crop, found in released if not found or not found[0].whole]
    assert len(cut) <= 0.01 * len(released)


def test_the_side_is_read_off_the_shape_of_the_knee(released):
    sides = {"R": "right", "L": "left"}
    told = [found[0].side == sides[crop.stem[-1]] for crop, found in released if found and found[0].side]
    assert len(told) > 0.9 * len(released)
    assert np.mean(told) > 0.98


def test_knees_on_each_others_places_have_no_sides(real_data):
    files = {file.stem: file for file in sorted(real_data.glob("val/[0-4]/*.png"))}
    patient = next(name[:-1] for name in files if f"{name[:-1]}L" in files and f"{name[:-1]}R" in files)
    right, left = (
        Crop(np.asarray(Image.open(files[patient + s])), side) for s, side in (("R", "right"), ("L", "left"))
    )
    rng = np.random.default_rng(0)
    assert [knee.side for knee in find(compose("bilateral", [right, left], rng, 200).pixels)] == ["right", "left"]
    assert [knee.side for knee in find(compose("bilateral", [left, right], rng, 200).pixels)] == [None, None]
