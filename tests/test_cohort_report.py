"""`koa cohort report`: what the results say, counted by hand."""

import json

import datasets
import pytest

from koa_hf.cli import main
from koa_hf.cohort import report
from koa_hf.cohort.results import Results, row_of
from koa_hf.grading.result import NotGraded
from tests.helpers import grading

COLUMNS = datasets.Features(
    {
        "patient_id": datasets.Value("string"),
        "study_uid": datasets.Value("string"),
        "duplicate_of": datasets.Value("string"),
        "kl_right": datasets.Value("int64"),
        "kl_left": datasets.Value("int64"),
    }
)


@pytest.fixture(scope="module")
def grades(tmp_path_factory):
    """Ten patients with a film of both knees; one with a film a knee; a repeated film; two kinds of failure."""
    results = Results(tmp_path_factory.mktemp("results") / "grades", 1, COLUMNS)
    about = {"dataset": "films", "split": "films", "model": "m", "model_revision": "r"}
    results.start(about)

    def knee(file, side, grade, **columns):
        probabilities = tuple(0.6 if g == grade else 0.1 for g in range(5))
        return row_of(grading(file=file, sha256=file, side=side, grade=grade, probabilities=probabilities), columns)

    rows = []
    for patient in range(10):
        known = {"patient_id": f"{patient}", "study_uid": f"s{patient}", "kl_right": patient % 5, "kl_left": 2}
        rows += [knee(f"{patient}.dcm", "right", patient % 5, **known), knee(f"{patient}.dcm", "left", 2, **known)]
    rows += [knee(f"{side}.dcm", side, 4, patient_id="one", study_uid="one") for side in ("right", "left")]
    rows.append(knee("copy.dcm", "right", 3, patient_id="0", duplicate_of="0.dcm"))
    rows.append(row_of(grading(file="odd.png", familiar=False, grade=0, side=None), {}))
    rows += [
        row_of(NotGraded(file=f"{i}.png", error=f"{i}.png is damaged (at {i}); export it again."), {}) for i in "ab"
    ]
    rows.append(row_of(NotGraded(file="slow.dcm", error="slow.dcm took more than 120 seconds to read."), {}))
    results.write(0, rows)
    results.finish()
    return results.folder


def test_films_knees_and_failures_are_counted(grades):
    found = report.summary(grades, repeats=20)
    assert (found["films"], found["knees"], found["duplicates_left_out"]) == (10 + 2 + 1 + 3, 23, 1)
    assert found["grades"] == {"right": [2, 2, 2, 2, 3], "left": [0, 0, 10, 0, 1], "unknown": [1, 0, 0, 0, 0]}
    assert found["failed"]["by_reason"] == {"Is damaged; export it again.": 2, "Took more than 120 seconds to read.": 1}
    assert found["unlike_the_training_knees"]["knees"] == 1
    assert found["patients"] == {"by": "patient_id", "number": 12}
    assert found["readers"] is None


def test_the_two_knees_of_a_film_or_of_a_study_are_compared(grades):
    two = report.summary(grades, repeats=20)["two_knees"]
    assert two["pairs"] == 11
    assert two["equal_grades"] == pytest.approx(3 / 11)
    assert two["within_one_grade"] == pytest.approx(7 / 11)
    assert [row[2] for row in two["right_by_left"]] == [2, 2, 2, 2, 2]
    low, high = two["interval_95_by_patient"]
    assert low <= two["quadratic_weighted_kappa"] <= high


def test_readers_grades_a_column_a_side_are_compared_with_intervals_by_patient(grades):
    readers = report.summary(grades, "kl_{side}", repeats=20)["readers"]
    assert (readers["column"], readers["knees"], readers["figures"]["accuracy"]) == ("kl_{side}", 20, 1.0)
    assert readers["intervals_95_by_patient"]["quadratic_weighted_kappa"] == (1.0, 1.0)


def test_the_command_writes_a_page_that_needs_nothing_else_and_json(grades, tmp_path, capsys):
    page, data = tmp_path / "cohort.html", tmp_path / "cohort.json"
    command = ["cohort", "report", str(grades), "--html", str(page), "--json", str(data), "--repeats", "20"]
    assert main([*command, "--readers", "kl_{side}"]) == 0
    assert capsys.readouterr().out == f"{page}: 16 films, 23 knees, 3 films that failed\n"
    assert json.loads(data.read_text())["two_knees"]["pairs"] == 11
    text = page.read_text()
    assert text.count("<img") == text.count('src="data:image/png;base64,') == 3
    assert "Took more than 120 seconds to read." in text
    assert "quadratic weighted kappa" in text


@pytest.mark.parametrize(
    ("readers", "says"),
    [("kl", "has no column 'kl'; its columns are"), ("unfamiliarity", "other values than KL grades")],
)
def test_a_column_that_holds_no_grades_is_refused(grades, readers, says, capsys):
    assert main(["cohort", "report", str(grades), "--readers", readers]) == 2
    assert says in capsys.readouterr().err


def test_a_folder_without_results_is_refused(tmp_path, capsys):
    assert main(["cohort", "report", str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err
