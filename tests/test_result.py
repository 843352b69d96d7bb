"""The one result type and its views."""

import csv
import io
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
from rich.console import Console

from koa_hf.cli.grade import print_table
from koa_hf.demo import page
from koa_hf.demo.api import DESCRIPTIONS, SCHEMAS
from koa_hf.demo.batch import Row
from koa_hf.grading.examination import GradedKnee
from koa_hf.grading.result import Grading, NotGraded
from koa_hf.imaging import phantom
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.report import csv_table, pdf_page
from koa_hf.report.document import Report
from tests.helpers import grading

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
FIELDS = [name for name in Grading.model_fields if name != "heatmap"]


def rows_of(*outcomes: Grading | NotGraded) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_table.as_csv(outcomes))))


def test_every_field_is_described_once_and_is_in_the_json_the_csv_and_the_api():
    one = grading()
    assert all(Grading.descriptions().values())
    assert list(Grading.descriptions()) == list(one.to_dict()) == [*FIELDS, "certainty", "remarks"]
    (row,) = rows_of(one)
    spread = {column for columns in csv_table.SPREAD.values() for column in columns}
    assert [column for column in row if column not in spread] == [
        *(name for name in FIELDS if name not in csv_table.SPREAD),
        "error",
    ]
    for name, description in Grading.descriptions().items():
        assert all(f"{name}: {description.replace('; ', ', ')}" in DESCRIPTIONS[endpoint] for endpoint in SCHEMAS)
        assert name in csv_table.SPREAD or name not in FIELDS or csv_table.COLUMNS[name] == description


def test_the_report_tells_what_the_grading_holds():
    knee = Radiograph(phantom.draw_knee(2, seed=2), "another name")
    report = Report(GradedKnee(grading(side="left", model="user/model", sha256="ab" * 32), knee), knee)
    assert report.to_dict().items() >= report.knee.grading.to_dict().items()
    texts = [text.get_text() for text in pdf_page.draw(report, 50).axes[0].texts]
    for told in ("knee.png", "ab" * 32, "user/model", "KL 2", "minimal", "Expected grade 1.6"):
        assert told in texts
    assert not any("another name" in text for text in texts)


def test_a_cell_of_the_csv_is_no_formula_to_a_spreadsheet():
    name = '=HYPERLINK("x").png'
    graded_row, failed_row = rows_of(
        grading(file=name, notes=("+1", "more"), model="@model", expected_grade=0.5), NotGraded(file=name, error="-1\r")
    )
    assert graded_row["file"] == failed_row["file"] == f"'{name}"
    assert (graded_row["notes"], graded_row["model"], failed_row["error"]) == ("'+1 more", "'@model", "'-1\r")
    (row,) = rows_of(grading(box=(-4, 0, 20, 24)))
    assert (row["box"], row["p1"]) == ("-4 0 20 24", "0.300000")  # numbers stay numbers


def test_gradings_are_equal_whatever_time_they_took_and_the_heat_map_is_not_printed():
    one, other = grading(), grading(seconds=3.0, heatmap=np.ones((5, 2, 2)))
    assert one == other
    assert hash(one) == hash(other)
    assert one != grading(grade=3)
    assert "heatmap" not in repr(one)


def test_results_are_shown_and_reported_in_an_interpreter_without_torch():
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in contracts if one["type"] == "forbidden" and "torch" in one["forbidden_modules"]]
    code = (
        "import importlib, pkgutil, sys\n"
        f"for name in {contract['source_modules']}:\n"
        "    module = importlib.import_module(name)\n"
        "    for found in pkgutil.walk_packages(getattr(module, '__path__', []), f'{name}.'):\n"
        "        importlib.import_module(found.name)\n"
        f"print([name for name in {contract['forbidden_modules']} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_notes_and_cautions_are_in_every_view_of_a_result():
    said = {"notes": ("Frame 1 of 3 was read.",), "cautions": ("The file says lateral view.",)}
    one = grading(**said)
    knee = Radiograph(phantom.draw_knee(2, seed=2), "knee.dcm")
    terminal = Console(file=io.StringIO(), width=200)
    print_table(terminal, [one])
    report = Report(GradedKnee(one, knee), knee)
    views = {
        "JSON": report.json(),
        "API": str(one.to_dict()),
        "CSV": csv_table.as_csv([one]),
        "table on the page": str(Row(one).cells),
        "table on the terminal": " ".join(terminal.file.getvalue().split()),
        "page": page.knee_html(GradedKnee(one, knee), 0, knee),
        "PDF": " ".join(text.get_text() for text in pdf_page.draw(report, 50).axes[0].texts),
    }
    for name, view in views.items():
        assert all(sentence in view for sentences in said.values() for sentence in sentences), name
    for name, grade in (("page", 'class="grade"'), ("PDF", "KL 2")):
        assert views[name].index("lateral view") < views[name].index(grade)
