import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from koa_hf.cli import main
from koa_hf.grading.result import Grading
from koa_hf.imaging import phantom
from koa_hf.report.csv_table import COLUMNS
from tests.helpers import zipped
from train.pictures.composites import Crop, compose


@pytest.fixture
def xrays(knee_png, tmp_path):
    """A folder with an X-ray, another in a folder below with [brackets] in its name, and a text file."""
    folder = tmp_path / "xrays"
    (folder / "below").mkdir(parents=True)
    shutil.copy(knee_png, folder / "a.png")
    shutil.copy(knee_png, folder / "below" / "[red]b.PNG")
    (folder / "notes.txt").write_text("not an X-ray")
    return folder


def loading(model) -> list[str]:
    return ["--model", str(model), "--engine", "torch"]


def test_a_folder_is_searched_all_the_way_down_and_every_x_ray_gets_a_row(xrays, model_folder, tmp_path):
    table = tmp_path / "grades.csv"
    assert main(["grade", str(xrays), *loading(model_folder), "--csv", str(table)]) == 0
    with table.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["file"] for row in rows] == [str(xrays / "a.png"), str(xrays / "below" / "[red]b.PNG")]
    assert sum(float(rows[0][f"p{g}"]) for g in range(5)) == pytest.approx(1, abs=1e-5)
    same = COLUMNS.keys() - {"file", "seconds"}
    assert {key: rows[0][key] for key in same} == {key: rows[1][key] for key in same}


def test_an_unreadable_file_is_named_at_the_end_and_stops_nothing(xrays, model_folder, tmp_path, capsys):
    broken, table = xrays / "broken.png", tmp_path / "grades.csv"
    broken.write_bytes(b"\x89PNG\r\n")
    assert main(["grade", str(xrays), *loading(model_folder), "--csv", str(table)]) == 2
    assert f"not graded: {broken} is not an image" in capsys.readouterr().err
    with table.open(newline="") as opened:
        rows = {row["file"]: row for row in csv.DictReader(opened)}
    assert len(rows) == 3
    assert "not an image" in rows[str(broken)]["error"]
    assert rows[str(xrays / "a.png")]["grade"]


def test_the_x_rays_in_a_zip_are_graded_and_what_is_none_is_named(xrays, model_folder, tmp_path, capsys):
    together, damaged = tmp_path / "together.zip", tmp_path / "damaged.zip"
    together.write_bytes(zipped({"visit/a.png": (xrays / "a.png").read_bytes(), "letter.png": b"Dear colleague"}))
    damaged.write_bytes(together.read_bytes()[:200])
    assert main(["grade", str(together), str(xrays / "a.png"), str(damaged), *loading(model_folder), "--json"]) == 2
    said = capsys.readouterr()
    inside, letter, alone, cut = map(json.loads, said.out.splitlines())
    assert (inside["file"], inside["sha256"]) == (f"{together}/visit/a.png", alone["sha256"])
    assert letter["error"].startswith(f"{together}/letter.png is not an image")
    assert cut["error"].startswith(f"{damaged} is a damaged zip")
    assert "graded 2 of 4 with" in said.err


def test_json_on_stdout_is_one_object_a_file_and_nothing_else(xrays, model_folder, capsys):
    assert main(["grade", str(xrays), *loading(model_folder), "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(one) for one in objects] == [list(Grading.descriptions())] * 2


@pytest.mark.parametrize(("columns", "probabilities"), [("80", False), ("120", True)])
def test_results_are_a_table_that_fits(columns, probabilities, xrays, model_folder, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.chdir(xrays / "below")
    assert main(["grade", "[red]b.PNG", *loading(model_folder)]) == 0
    printed = capsys.readouterr().out
    assert "[red]b.PNG" in printed
    assert "KL" in printed
    assert ("%" in printed) == probabilities


@pytest.mark.parametrize("argument", ["empty", "missing", "csv"])
def test_bad_input_is_one_sentence_and_exit_code_2(argument, xrays, model_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = {
        "empty": [str(tmp_path / "empty"), *loading(model_folder)],
        "missing": [str(xrays), str(xrays / "missing.png"), *loading(model_folder)],
        "csv": [str(xrays), *loading(model_folder), "--csv", str(tmp_path / "no" / "grades.csv")],
    }[argument]
    assert main(["grade", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_run_that_fails_leaves_the_csv_of_the_last_one_alone(xrays, tmp_path):
    table = tmp_path / "grades.csv"
    table.write_text("kept")
    assert main(["grade", str(xrays), "--model", str(tmp_path), "--csv", str(table)]) == 2
    assert table.read_text() == "kept"
    assert [path.name for path in tmp_path.glob(".*.partial")] == []


def test_every_knee_of_a_film_gets_a_row_unless_the_film_is_to_be_graded_as_it_is(model_folder, tmp_path, capsys):
    knees = [Crop(phantom.draw_knee(2, 3, side), side) for side in ("right", "left")]
    film = compose("bilateral", knees, np.random.default_rng(1), size=200, varied=False)
    Image.fromarray(film.pixels).save(tmp_path / "film.png")
    table = tmp_path / "grades.csv"
    command = [str(tmp_path / "film.png"), *loading(model_folder), "--json"]
    assert main(["grade", *command, "--csv", str(table)]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["side"] for one in found] == ["right", "left"]
    with table.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["box"] for row in rows] == [" ".join(map(str, one["box"])) for one in found]
    assert main(["grade", *command, "--whole"]) == 0
    (whole,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert whole["box"] is None


def test_heat_maps_and_reports_of_every_film_are_written_beside_the_table(film_png, knee_png, model_folder, tmp_path):
    pictures, reports = tmp_path / "new" / "heatmaps", tmp_path / "reports"
    options = ["--heatmaps", str(pictures), "--reports", str(reports)]
    assert main(["grade", str(film_png), str(knee_png), *loading(model_folder), *options]) == 0
    sizes = {path.name[:5]: Image.open(path).size for path in pictures.iterdir()}
    assert sizes == {"film-": (1200, 600), "knee-": (600, 600)}
    pages = {path.name[:5]: len(PdfReader(path).pages) for path in reports.iterdir()}
    assert pages == {"film-": 2, "knee-": 1}
    assert {path.stem for path in pictures.iterdir()} == {path.stem for path in reports.iterdir()}


def test_a_folder_of_results_that_is_a_file_is_refused_before_anything_is_graded(knee_png, tmp_path, capsys):
    assert main(["grade", str(knee_png), "--model", str(tmp_path), "--reports", str(knee_png)]) == 2
    assert "knee.png can't be made a folder" in capsys.readouterr().err
