import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from koa_hf import Grader
from koa_hf.demo import batch
from koa_hf.demo.batch import Limits
from koa_hf.errors import KoaError
from koa_hf.grading.examination import examine
from koa_hf.imaging import localiser, phantom
from koa_hf.imaging.localiser import KneeBox
from koa_hf.imaging.radiograph import read
from tests.helpers import zipped


@pytest.fixture
def files(knee_png, film_png, tmp_path) -> list[Path]:
    """A zip with a good and a bad file, a film of both knees, and a file that vanished."""
    together = tmp_path / "together.zip"
    together.write_bytes(zipped({"visit/knee.png": knee_png.read_bytes(), "visit/letter.png": b"Dear colleague"}))
    return [together, film_png, tmp_path / "gone.png"]


def graded(grader: Grader, files: list[Path], **limits) -> list[batch.Row]:
    return [row for rows in batch.grade_all(grader, files, Limits(**limits)) for row in rows]


def test_every_file_has_its_row_in_order_and_a_film_one_for_each_knee(grader, files):
    assert batch.count(files) == 4
    rows = graded(grader, files)
    assert [(row.file, row.grading and row.grading.side, bool(row.error)) for row in rows] == [
        ("visit/knee.png", "right", False),
        ("visit/letter.png", None, True),
        ("film.png", "right", False),
        ("film.png", "left", False),
        ("gone.png", None, True),
    ]
    table = list(csv.DictReader(io.StringIO(batch.as_csv(rows))))
    assert [row["grade"] for row in table] == [str(row.grading.grade) if row.grading else "" for row in rows]
    assert table[1]["error"] == rows[1].error
    assert all(len(row.cells) == len(batch.TABLE_COLUMNS) - 1 for row in rows)


def test_what_is_not_graded_in_time_is_named_and_not_lost(grader, files):
    rows = graded(grader, files, seconds=1e-9)
    assert [row.grading for row in rows] == [None] * 4
    assert rows[0].error.startswith("visit/knee.png was left out")


def test_an_image_over_the_limit_is_refused_in_its_row(grader, files):
    rows = graded(grader, files, megapixels=0.7)
    assert "has more than 1 million pixels" in rows[2].error
    assert rows[0].error == ""


def test_a_box_that_shows_nothing_of_the_film_is_refused(grader, film_png):
    film = read(film_png)
    beside = KneeBox((5000, 0, 5400, 400), None, 1.0, False)
    with pytest.raises(KoaError, match="lies beside the film"):
        examine(grader, [film], [beside])
    inside = KneeBox((0, 0, 300, 300), None, 1.0, False)
    with pytest.raises(KoaError, match="there are 3 boxes"):
        examine(grader, [film], [inside] * 3)
    with pytest.raises(KoaError, match="twice as large"):
        examine(grader, [film], [KneeBox((-3000, -3000, 3000, 3000), None, 1.0, False)])
    shuttered = dataclasses.replace(film, pixels=np.pad(film.pixels, ((500, 0), (0, 0))))
    with pytest.raises(KoaError, match="shows one grey level"):
        examine(grader, [shuttered], [inside])


def test_a_knee_of_a_film_is_graded_as_its_crop(grader, film_png):
    film = read(film_png)
    boxes = [KneeBox((700, 0, 1100, 400), "left", 1.0, False), KneeBox((180, 0, 580, 400), "right", 1.0, False)]
    examination = examine(grader, [film], boxes)[0]
    assert [knee.grading.box for knee in examination.knees] == [boxes[1].box, boxes[0].box]
    for knee in examination.knees:
        (alone,) = grader.grade_batch([localiser.crop(film, knee.grading.box)])
        assert knee.grading.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert knee.grading.heatmap == pytest.approx(alone.heatmap, abs=1e-4)
    assert [knee.grading.side for knee in examination.knees] == ["right", "left"]
    whole = examine(grader, [film], as_it_is=True)[0]
    assert (whole.boxes, whole.knees[0].grading.box) == ((), None)


def test_a_crop_is_graded_as_it_is(grader, tmp_path):
    path = tmp_path / "crop.png"
    Image.fromarray(phantom.draw_knee(2, seed=4)).save(path)
    examination = examine(grader, [read(path)])[0]
    assert examination.whole
    assert examination.knees[0].grading.box is None
