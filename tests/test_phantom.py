import re
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from koa_hf.cli import main
from koa_hf.errors import KoaError
from koa_hf.imaging import phantom
from koa_hf.imaging.polarity import is_negative

GRADES = range(5)


def joint_space(pixels: np.ndarray) -> float:
    """Mean height (pixels) of the medial joint space of a right knee: what is darker than the bone around it."""
    medial = pixels[95:150, 150:180].astype(float)
    bone = np.median(pixels[60:90, 150:180])
    return float((medial < 0.85 * bone).sum(axis=0).mean())


@pytest.mark.parametrize("grade", GRADES)
def test_a_phantom_is_an_8_bit_square_with_bone_bright(grade):
    pixels = phantom.draw_knee(grade, seed=3, size=160)
    assert pixels.shape == (160, 160)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 15
    assert not is_negative(pixels)
    assert is_negative(255 - pixels)


def test_the_same_arguments_draw_the_same_pixels_and_another_seed_draws_another_knee():
    once, again, other = phantom.draw_knee(2, seed=5), phantom.draw_knee(2, seed=5), phantom.draw_knee(2, seed=6)
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_a_left_knee_is_the_mirror_image_of_a_right_one():
    assert np.array_equal(phantom.draw_knee(1, 0, "left"), phantom.draw_knee(1, 0, "right")[:, ::-1])


def test_the_medial_joint_space_narrows_with_every_grade():
    heights = [np.mean([joint_space(phantom.draw_knee(grade, seed)) for seed in range(12)]) for grade in GRADES]
    assert heights == sorted(heights, reverse=True)
    assert heights[4] < heights[0] / 2


@pytest.mark.parametrize("arguments", [(5, 0), (-1, 0), (0, 0, "R")])
def test_a_grade_or_side_that_does_not_exist_is_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        phantom.draw_knee(*arguments)


def test_a_phantom_release_has_the_shape_of_the_public_one(release_folder):
    patients, pairs = defaultdict(set), defaultdict(dict)
    for path in release_folder.rglob("*.png"):
        split, grade, name = path.relative_to(release_folder).parts
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((224, 224), "L")
        match = re.fullmatch(r"(\d{7})_([12])\.png" if split == "auto_test" else r"(\d{7})([LR])\.png", name)
        patients[split].add(match[1])
        pairs[split, match[1]][match[2]] = grade
    assert {split: len(ids) for split, ids in patients.items()} == {"train": 20, "val": 8, "test": 8, "auto_test": 8}
    assert all(len(sides) == 2 for sides in pairs.values())
    assert not patients["train"] & patients["val"]
    assert not (patients["train"] | patients["val"]) & patients["test"]
    assert patients["auto_test"] == patients["test"]
    for split in patients:
        assert {path.name for path in (release_folder / split).iterdir()} == set("01234")
    same = [grades["L"] == grades["R"] for (split, _), grades in pairs.items() if split != "auto_test"]
    assert 0.3 < np.mean(same) < 0.7
    for patient in patients["test"]:
        right_and_left = pairs["test", patient]
        assert pairs["auto_test", patient] == {"1": right_and_left["R"], "2": right_and_left["L"]}


def test_the_command_shares_its_patients_out_and_says_what_it_wrote(tmp_path, capsys):
    assert main(["phantom", str(tmp_path / "out"), "--patients", "10"]) == 0
    assert "20 drawn knees of 10 patients" in capsys.readouterr().out
    counts = {split: len(list((tmp_path / "out" / split).rglob("*.png"))) for split in phantom.SPLITS}
    assert counts == {"train": 8, "val": 6, "test": 6}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["phantom", str(tmp_path)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_too_few_patients_for_five_grades_are_refused(tmp_path):
    with pytest.raises(KoaError, match="ask for 9 or more"):
        phantom.write_release(tmp_path / "out", patients=8)
