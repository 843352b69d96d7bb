"""`koa cohort grade`: whole shards, the same rows for any number of processes, and no film that stops the others."""

import contextlib
import json
import os
import re
import resource
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import duckdb
import pandas as pd
import polars as pl
import psutil
import pyarrow.parquet as pq
import pytest

from benchmarks.studies import cohort_faults
from koa_hf.cli import main
from koa_hf.cohort import grade
from koa_hf.cohort.build import build_cohort
from koa_hf.cohort.films import Films
from koa_hf.cohort.grade import grade_cohort
from koa_hf.errors import KoaError
from koa_hf.grading.result import Grading
from koa_hf.imaging import phantom
from koa_hf.imaging.radiograph import Radiograph
from tests.helpers import dicom_of, grading
from tests.processes import REPOSITORY, run, run_in_two

KNEES = 9


class PixelGrader:
    """Grades by the sum of the pixels: the same knee has the same grade in any run.

    Args:
        batches: after so many it fails, as if it were killed.
    """

    model_id, revision, note = "pixels", "1", ""

    def __init__(self, batches: float = float("inf")):
        self.left = batches

    def grade_batch(self, radiographs: Sequence[Radiograph]) -> list[Grading]:
        if self.left <= 0:
            raise KeyboardInterrupt
        self.left -= 1
        return [
            grading(
                file=knee.name, sha256=knee.sha256, side=knee.side, notes=knee.notes, grade=int(knee.pixels.sum()) % 5
            )
            for knee in radiographs
        ]


@pytest.fixture(scope="module")
def archive(film_png, tmp_path_factory) -> Path:
    """Nine knees of one patient each, a film of two knees, and a film cut short: three shards of films."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(KNEES):
        knee = dicom_of(phantom.draw_knee(number % 5, seed=number), PatientID=f"{number}")
        (folder / f"{number}.dcm").write_bytes(knee)
    (folder / "both.png").write_bytes(film_png.read_bytes())
    (folder / "short.png").write_bytes(film_png.read_bytes()[:3000])
    return folder


@pytest.fixture(scope="module")
def films(archive, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("films") / "films"
    build_cohort(archive, out, films_per_shard=4, keep_ids=True)
    return out


@pytest.fixture(scope="module", autouse=True)
def one_reader() -> Iterator[None]:
    """One process that reads films, for all tests: to start one takes longer than to read all of these."""
    with grade.reading(1) as pool, pytest.MonkeyPatch.context() as patched:
        patched.setattr(grade, "reading", lambda workers: contextlib.nullcontext(pool))
        yield


@pytest.fixture(scope="module")
def graded(films, tmp_path_factory) -> Path:
    """The results of one run in one process."""
    out = tmp_path_factory.mktemp("graded") / "grades"
    grade_cohort(PixelGrader(), Films(films), out, workers=1)
    return out


def rows(out: Path) -> list[dict]:
    """All rows in order, without their durations."""
    shards = sorted((out / "data").glob("*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).drop_columns("seconds").to_pylist()]


def test_every_film_has_its_rows_in_order_with_every_field_and_its_own_columns(graded):
    knees = datasets.load_dataset(str(graded), split="knees")
    assert set(Grading.descriptions()) <= set(knees.column_names)
    assert knees["file"][:] == [f"{number}.dcm" for number in range(KNEES)] + ["both.png"] * 2 + ["short.png"]
    assert knees["patient_id"][:KNEES] == [f"{number}" for number in range(KNEES)]
    *_, right, left, short = knees
    assert (right["side"], left["side"], right["error"], len(right["box"])) == ("right", "left", None, 4)
    assert right["probabilities"] == [0.1, 0.3, 0.5, 0.1, 0.0]
    assert (short["grade"], short["sha256"]) == (None, None)
    assert "short.png is damaged or cut short" in short["error"]


def test_the_results_load_in_the_one_line_each_that_the_page_shows(graded):
    page = (REPOSITORY / "docs" / "cohorts.md").read_text()
    lines = re.search(r"In one line each:\n\n```python\n(.*?)```", page, re.DOTALL)[1].splitlines()
    readers = {"datasets": datasets, "pandas": pd, "duckdb": duckdb, "polars": pl}
    loaded = [eval(line.replace("data/grades", str(graded)), readers) for line in lines]
    counts = [len(loaded[0]), len(loaded[1]), sum(row[-1] for row in loaded[2].fetchall()), loaded[3].collect().height]
    assert counts == [12] * 4


def test_the_rows_are_the_same_for_any_number_of_processes(films, graded, tmp_path):
    for process in (1, 0):
        results, _ = grade_cohort(
            PixelGrader(), Films(films), tmp_path / "grades", process=process, processes=2, workers=1, batch_size=3
        )
        assert (tmp_path / "grades" / "README.md").exists() == (not results.missing()) == (process == 0)
    assert rows(tmp_path / "grades") == rows(graded)


def test_sides_and_grades_of_a_data_set_of_crops_come_along(dataset_folder, tmp_path):
    test = Films(dataset_folder, split="test")
    grade_cohort(PixelGrader(), test, tmp_path / "grades", workers=1, whole=True)
    expected = datasets.load_dataset(str(dataset_folder), split="test")
    found = rows(tmp_path / "grades")
    for column in ("side", "label", "patient_id"):
        assert [row[column] for row in found] == expected[column][:]


def test_a_run_that_died_goes_on_with_the_first_shard_that_is_not_there(films, graded, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        grade_cohort(PixelGrader(batches=3), Films(films), tmp_path / "grades", workers=1, batch_size=2)
    there = {file: file.stat().st_mtime_ns for file in (tmp_path / "grades" / "data").iterdir()}
    assert [file.name for file in there] == ["knees-00000-of-00003.parquet"]
    _, counts = grade_cohort(PixelGrader(), Films(films), tmp_path / "grades", workers=1)
    assert counts.films == KNEES + 2 - 4
    assert all(file.stat().st_mtime_ns == before for file, before in there.items())
    assert rows(tmp_path / "grades") == rows(graded)


def test_a_film_that_hangs_kills_its_reader_or_is_gone_is_a_row_with_the_reason(archive, films, tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in ("a.dcm", "b.dcm", "c.dcm", "d.dcm"):
        (folder / name).write_bytes((archive / "0.dcm").read_bytes())
    build_cohort(folder, tmp_path / "films")
    for name in ("a.dcm", "b.dcm", "c.dcm"):
        (folder / name).unlink()
    for name in ("a.dcm", "b.dcm"):
        os.mkfifo(folder / name)  # reading it hangs until somebody writes

    def kill_the_reader_of_b():
        with (folder / "b.dcm").open("wb"):  # once somebody reads
            for child in psutil.Process().children():
                if any("spawn_main" in part for part in child.cmdline()):
                    child.kill()
            time.sleep(0.5)

    killer = threading.Thread(target=kill_the_reader_of_b, daemon=True)
    killer.start()
    _, counts = grade_cohort(PixelGrader(), Films(tmp_path / "films"), tmp_path / "grades", workers=1, seconds=1)
    killer.join()
    assert (counts.films, counts.errors, counts.knees) == (4, 3, 1)
    errors = [row["error"] for row in rows(tmp_path / "grades")]
    for error, says in zip(errors, ("more than 1 seconds", "crashed the process", "does not exist"), strict=False):
        assert says in error
    assert (
        rows(tmp_path / "grades")[3]["grade"]
        == PixelGrader().grade_batch([Radiograph(phantom.draw_knee(0, 0), "a")])[0].grade
    )


def test_a_full_disk_is_one_sentence_and_leaves_whole_shards_only(films, graded, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    Films(films)  # caches what it caches
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        with pytest.raises(KoaError, match="File too large"):
            grade_cohort(PixelGrader(), Films(films), tmp_path / "grades", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [*(tmp_path / "grades" / "data").iterdir()] == []
    grade_cohort(PixelGrader(), Films(films), tmp_path / "grades", workers=1)
    assert rows(tmp_path / "grades") == rows(graded)


def test_results_of_another_model_or_data_set_are_not_mixed(films, graded, tmp_path):
    other = PixelGrader()
    other.revision = "2"
    with pytest.raises(KoaError, match="with another model_revision"):
        grade_cohort(other, Films(films), graded, workers=1)
    with pytest.raises(KoaError, match="exists and holds other files"):
        grade_cohort(PixelGrader(), Films(films), films, workers=1)


def test_a_data_set_without_films_is_refused(tmp_path, release_folder, capsys):
    assert main(["cohort", "grade", str(tmp_path / "nowhere"), str(tmp_path / "grades")]) == 2
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.csv").write_text("a,b\n1,2\n")
    assert main(["cohort", "grade", str(tmp_path / "text"), str(tmp_path / "grades")]) == 2
    errors = capsys.readouterr().err
    assert "has no column of images" in errors
    assert errors.count("error: ") == errors.count("\n") == 2


def test_two_processes_of_accelerate_and_a_real_network_give_the_rows_of_one(films, model_folder, tmp_path, capsys):
    command = ["cohort", "grade", str(films), "--model", str(model_folder), "--engine", "torch", "--workers", "1"]
    done = run_in_two("-m", "koa_hf", *command[:3], str(tmp_path / "two"), *command[3:], "--device", "cpu")
    assert "process 1 of 2: graded 7 films, 7 knees" in done.stderr + done.stdout
    assert main([*command[:3], str(tmp_path / "one"), *command[3:], "--device", "cpu"]) == 0
    assert "all films are graded" in capsys.readouterr().out
    assert rows(tmp_path / "one") == rows(tmp_path / "two")
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    assert (run["engine"], run["precision"], run["dataset"]) == ("torch", "fp32", str(films))


def test_films_are_streamed_from_the_hub_and_their_grades_go_there_with_a_card(hub, archive, model_folder, tmp_path):
    build_cohort(archive, tmp_path / "films", embed=True, films_per_shard=4)
    here = {"env": hub.environment(tmp_path / "home")}
    run("-m", "koa_hf", "push", "cohort", tmp_path / "films", "user/films", **here)
    model = ("--model", model_folder, "--engine", "torch", "--device", "cpu", "--workers", 1)
    run("-m", "koa_hf", "cohort", "grade", "user/films", tmp_path / "grades", *model, **here)
    assert json.loads((tmp_path / "grades" / "run.json").read_text())["dataset_revision"] is not None
    run("-m", "koa_hf", "push", "cohort", tmp_path / "grades", "user/grades", **here)
    code = "from datasets import load_dataset\nprint('ROWS', load_dataset('user/grades', split='knees').num_rows)"
    assert "ROWS 12" in hub.run(code, tmp_path / "home").stdout
    published = hub.store.repository("dataset", "user/grades").commit("main").files
    assert "run.json" in published
    assert str(tmp_path) not in hub.store.content(published["run.json"].sha256).read_text()


def test_paths_of_this_machine_and_unfinished_grades_are_not_published(films, graded, tmp_path, capsys):
    assert main(["push", "cohort", str(films), "user/films", "--dry-run"]) == 2
    assert "build it with --embed" in capsys.readouterr().err
    unfinished = tmp_path / "grades"
    shutil.copytree(graded, unfinished)
    next((unfinished / "data").iterdir()).unlink()
    assert main(["push", "cohort", str(unfinished), "user/grades", "--dry-run"]) == 2
    assert "is not complete" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_ten_random_moments_and_started_again_it_gives_the_same_table(tmp_path):
    found = list(cohort_faults.run(tmp_path, kills=10))
    assert [row for row in found if not row["as_expected"]] == []
    assert sum(row["fault"] == "SIGKILL" for row in found) >= 5  # the others had ended
