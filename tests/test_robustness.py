"""Disturbances of knee crops, and the figures of grades before and after."""

import csv
import json

import numpy as np
import pytest

from benchmarks.studies import robustness
from benchmarks.studies.disturbances import CLEAN, DISTURBANCES, chosen
from benchmarks.studies.robustness import GOALS, Gradings, figures
from koa_hf.errors import KoaError
from koa_hf.imaging import phantom

by_name = pytest.mark.parametrize("disturbance", DISTURBANCES, ids=lambda one: one.name)


@pytest.fixture(scope="module")
def knee() -> np.ndarray:
    return phantom.draw_knee(2, seed=3)


@by_name
def test_a_disturbance_gives_another_grey_image_of_a_knees_size(disturbance, knee):
    disturbed = disturbance(knee, "9000099L.png")
    assert disturbed.dtype == np.uint8
    assert disturbed.flags.c_contiguous
    assert disturbed.ndim == 2
    assert all(0.39 * 224 <= side <= 1.12 * 224 for side in disturbed.shape)
    assert np.array_equal(disturbed, knee) == (disturbance.name == CLEAN)
    assert disturbed.std() > 5, "nothing is left of the knee"


@by_name
def test_a_disturbance_is_the_same_for_the_same_file(disturbance, knee):
    assert np.array_equal(disturbance(knee, "9000099L.png"), disturbance(knee, "9000099L.png"))


def test_noise_differs_between_files_and_has_the_standard_deviation_that_it_is_named_by():
    grey = np.full((224, 224), 128, np.uint8)
    for name, sigma in (("noise-4", 4), ("noise-8", 8), ("noise-16", 16), ("grain-8", 8), ("quantum-8", 8)):
        noise = chosen([name])[1]
        assert not np.array_equal(noise(grey, "1L.png"), noise(grey, "2L.png"))
        assert noise(grey, "1L.png").std() == pytest.approx(sigma, rel=0.05)


def test_quantum_noise_is_strongest_in_bone_and_keeps_grey_levels():
    quantum = chosen(["quantum-8"])[1]
    soft, bone = (quantum(np.full((224, 224), grey, np.uint8), "1L.png").astype(float) for grey in (60, 190))
    assert bone.std() > 1.3 * soft.std()
    assert abs(soft.mean() - 60) < 2
    assert abs(bone.mean() - 190) < 2


def test_lower_qualities_lose_more(knee):
    for names in (("jpeg-90", "jpeg-75", "jpeg-50", "jpeg-30"), ("webp-80", "webp-50"), ("blur-1", "blur-2")):
        lost = [np.abs(one(knee, "1L.png") - knee.astype(float)).mean() for one in chosen(list(names))[1:]]
        assert lost == sorted(lost)


def test_a_strip_has_the_crops_width_and_its_middle_rows(knee):
    strip = chosen(["strip-0.5"])[1](knee, "1L.png")
    assert np.array_equal(strip, knee[56:168])


def test_disturbances_are_chosen_by_name_or_pattern_after_the_clean_crop():
    assert [one.name for one in chosen(["webp-*", "blur-1"])] == ["clean", "webp-80", "webp-50", "blur-1"]
    assert len(chosen(None)) == len(DISTURBANCES)


def test_an_unknown_disturbance_is_refused_with_those_there_are():
    with pytest.raises(KoaError, match=r"no disturbance jpeg-10; choose from clean, jpeg-90"):
        chosen(["jpeg-10"])


def test_every_goal_is_of_a_disturbance():
    assert set(GOALS) <= {one.name for one in DISTURBANCES}


LABELS, PATIENTS = np.array([0, 1, 2, 3]), np.array(["a", "a", "b", "b"])


def gradings(grades: list[int], sets: list[tuple[int, int]] | None, unfamiliarity: list[float] | None) -> Gradings:
    probabilities = np.full((len(grades), 5), 0.1)
    probabilities[np.arange(len(grades)), grades] = 0.6
    some = (None if given is None else np.array(given) for given in (sets, unfamiliarity))
    return Gradings(np.array(grades), probabilities, *some)


def test_figures_of_four_knees_by_hand():
    clean = gradings([0, 1, 2, 2], [(0, 0), (0, 1), (2, 2), (2, 2)], [0.1, 0.2, 0.3, 0.4])
    disturbed = gradings([0, 3, 1, 3], [(0, 1), (2, 4), (1, 2), (3, 3)], [0.5, 1.5, 0.9, 1.1])
    found = figures(disturbed, clean, LABELS, PATIENTS)
    assert found["accuracy"] == 0.5  # the first and the last
    assert found["kept"] == 0.25  # the first
    assert found["moved_by_two"] == 0.25  # the second, from 1 to 3
    assert found["mean_shift"] == 0.5  # 0, +2, -1, +1
    assert found["coverage"] == 0.75  # not the second
    assert found["mean_set_size"] == 2  # 2, 3, 2, 1
    assert found["out_of_distribution"] == 0.5
    assert found["accuracy_95"] == (0.5, 0.5)  # each patient has one of two right
    itself = figures(clean, clean, LABELS, PATIENTS)
    assert (itself["kept"], itself["moved_by_two"], itself["mean_shift"]) == (1, 0, 0)


def test_a_plain_network_has_no_coverage_and_calls_nothing_out_of_distribution():
    plain = gradings([0, 1, 2, 3], None, None)
    found = figures(plain, plain, LABELS, PATIENTS)
    assert found["coverage"] is found["mean_set_size"] is found["out_of_distribution"] is None
    assert robustness.errors_told_by_distance([plain], LABELS) is None


def test_a_distance_that_is_largest_where_the_grade_is_wrong_tells_errors():
    right = gradings([0, 1, 2, 3], [(0, 0), (1, 1), (2, 2), (3, 3)], [0.1, 0.2, 0.3, 0.4])
    wrong = gradings([0, 1, 0, 1], [(0, 0), (1, 1), (0, 1), (0, 3)], [0.1, 0.2, 0.9, 0.8])
    assert robustness.errors_told_by_distance([right, wrong], LABELS) == {"wrong_by_two": 1.0, "set_misses": 1.0}


def test_gradings_are_read_again_for_the_same_knees_only(tmp_path):
    names = ["1L.png", "1R.png", "2L.png", "2R.png"]
    before = gradings([0, 1, 2, 3], [(0, 0), (1, 1), (2, 2), (3, 3)], None)
    before.save(tmp_path / "gradings" / "clean.npz", names)
    after = Gradings.load(tmp_path / "gradings" / "clean.npz", names)
    assert after.grades.tolist() == [0, 1, 2, 3]
    assert after.sets.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert after.unfamiliarity is None
    assert Gradings.load(tmp_path / "gradings" / "clean.npz", names[::-1]) is None
    assert Gradings.load(tmp_path / "gradings" / "blur-1.npz", names) is None


def test_models_stand_side_by_side_and_a_measurement_replaces_its_earlier_self():
    first = {**dict.fromkeys(robustness.KEY, "a"), "rows": {"clean": 1, "blur-1": 1}}
    second = {**first, "revision": "b", "rows": {"clean": 2}}
    models = robustness.merged(robustness.merged([], first), second)
    assert models == [first, second]
    again = robustness.merged(models, {**first, "rows": {"blur-1": 3, "blur-2": 4}})
    assert again == [{**first, "rows": {"clean": 1, "blur-1": 3, "blur-2": 4}}, second]


def test_a_run_writes_table_page_and_picture_and_grades_nothing_twice(
    dataset_folder, model_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(robustness, "WORK", tmp_path / "work")
    options = ["--dataset", str(dataset_folder), "--model", str(model_folder), "--images", "5", "--cpu"]
    options += ["--precision", "fp32", "--engine", "torch", "--output-dir", str(tmp_path / "out")]
    assert robustness.main([*options, "--only", "jpeg-50"]) == 0
    graded_anew = []
    really = robustness.grade_disturbed

    def noted(grader, knees, disturbance, *rest):
        graded_anew.append(disturbance.name)
        return really(grader, knees, disturbance, *rest)

    monkeypatch.setattr(robustness, "grade_disturbed", noted)
    assert robustness.main([*options, "--only", "jpeg-50", "strip-0.5-searched"]) == 0
    assert graded_anew == ["strip-0.5-searched"]

    (model,) = json.loads((tmp_path / "out" / "robustness.json").read_text())["models"]
    assert list(model["rows"]) == ["clean", "jpeg-50", "strip-0.5-searched"]
    assert (model["name"], model["images"]) == ("koa-random", 5)
    assert model["rows"]["clean"]["kept"] == 1
    table = list(csv.DictReader((tmp_path / "out" / "robustness.csv").open()))
    assert [row["disturbance"] for row in table] == list(model["rows"])
    assert float(table[1]["kept"]) == pytest.approx(model["rows"]["jpeg-50"]["kept"], abs=1e-4)
    page = (tmp_path / "out" / "README.md").read_text()
    assert f"koa-random {model['revision'][:12]}" in page
    assert "| JPEG 50 | 0.695 (86 %, 2 %, ±0.05) |" in page
    assert (tmp_path / "out" / "robustness.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "work" / "log.txt").read_text().splitlines()) >= 3
