"""The state machine of the page, with a grader that answers at once and no server."""

import json
import re
import zipfile
from pathlib import Path

import gradio as gr
import pytest

import app
from koa_hf.demo.batch import Limits
from koa_hf.demo.components import film_editor, knee_panel, results_table
from koa_hf.demo.flow import FORGOTTEN, Flow, Parts
from koa_hf.demo.session import VISIT_SECONDS, Visit
from koa_hf.errors import KoaError
from tests.helpers import Stub


@pytest.fixture
def flow(tmp_path) -> Flow:
    with gr.Blocks():
        knees = [knee_panel(i, with_disagreement=False) for i in range(2)]
        parts = Parts(
            gr.State(Visit()),
            gr.File(),
            gr.HTML(),
            results_table(),
            film_editor(),
            knees,
            gr.Button(),
            gr.DownloadButton(),
        )
    return Flow(parts, Stub(), Limits(), tmp_path)


def ended(updates) -> dict:
    """All updates of a handler that yields several, the later ones over the earlier."""
    merged = {}
    for update in updates:
        merged |= update
    return merged


def shown(flow: Flow, updates: dict) -> list[bool]:
    return [updates[panel.column]["visible"] for panel in flow.parts.knees]


def test_a_film_shows_its_knees_and_its_boxes_and_is_forgotten_once_cleared(flow, film_png):
    updates = ended(flow.start([str(film_png)], Visit()))
    assert shown(flow, updates) == [True, True]
    assert len(updates[flow.parts.film]["value"]) == 2
    visit = updates[flow.parts.visit]
    report = Path(flow.save_report(0, "json", visit))
    assert (report.name[:12], report.name[-11:]) == ("knee-report-", "-right.json")
    one = flow.grade_boxes(updates[flow.parts.film]["value"][:1], visit)
    assert shown(flow, one) == [True, False]
    visit = one[flow.parts.visit]
    assert shown(flow, flow.clear(visit)) == [False, False]
    for handler in (lambda: flow.save_report(0, "pdf", visit), lambda: flow.grade_whole(visit)):
        with pytest.raises(KoaError, match=FORGOTTEN):
            handler()


def test_a_row_of_a_batch_opens_once_the_batch_is_done(flow, knee_png, film_png):
    updates = flow.start([str(knee_png), str(film_png)], Visit())
    started = next(updates)
    row = gr.SelectData(None, {"index": [1, 0], "value": 2, "row_value": [2, "film.png"]})
    assert list(flow.show_row(row, started[flow.parts.visit])) == [flow.parts.visit]  # a word, and nothing changes
    finished = ended(updates)
    assert [cells[:3] for cells in finished[flow.parts.table.rows]] == [
        [1, "knee.png", "right"],
        [2, "film.png", "right"],
        [3, "film.png", "left"],
    ]
    visit = finished[flow.parts.visit]
    assert shown(flow, flow.show_row(row, visit)) == [True, True]
    assert Path(flow.save_csv(visit)).read_text().count("film.png") == 2
    with zipfile.ZipFile(flow.save_reports(visit)) as reports:
        names = [re.sub("[0-9a-f]{8}", "_", name) for name in reports.namelist()]
        assert json.loads(reports.read(reports.namelist()[-1]))["side"] == "left"
    knees = ["0001-knee-report-_-right", "0002-knee-report-_-right", "0003-knee-report-_-left"]
    assert names == ["knee-grades.csv", *(f"{knee}.{kind}" for knee in knees for kind in ("pdf", "json"))]


def test_an_adjusted_film_is_searched_anew_and_its_report_says_what_was_done(flow, film_png):
    visit = ended(flow.start([str(film_png)], Visit()))[flow.parts.visit]
    first = flow.adjust(gr.EventData(None, {"change": "mirror"}), visit)
    visit = first[flow.parts.visit]
    assert len(first[flow.parts.film]["value"]) == 2
    assert first[flow.parts.film]["mirrored"]
    again = flow.adjust(gr.EventData(None, {"change": "window", "window": [40, 60]}), visit)
    report = json.loads(Path(flow.save_report(0, "json", again[flow.parts.visit])).read_text())
    assert report["notes"][-2:] == [
        "The user mirrored the film before grading.",
        "The user set the film's window to level 40% and width 60% of its grey levels before grading.",
    ]
    with pytest.raises(KoaError, match="reload the page"):
        flow.adjust(gr.EventData(None, {"change": "window", "window": [40, 0]}), visit)


def test_what_a_visitor_asks_for_last_wins(flow, knee_png, film_png):
    start = flow.last_wins(flow.start)
    visit = Visit()
    first = start([str(film_png), str(knee_png)], visit)
    next(first)
    assert shown(flow, ended(start([str(knee_png)], visit))) == [True, False]
    assert list(first) == [{flow.parts.clear: gr.skip()}]


def test_an_upload_that_can_not_be_read_takes_the_last_result_away(flow, tmp_path):
    letter = tmp_path / "letter.png"
    letter.write_text("Dear colleague")
    updates = ended(flow.start([str(letter)], Visit()))
    assert "letter.png is not an image" in updates[flow.parts.message]["value"]
    assert shown(flow, updates) == [False, False]
    assert updates[flow.parts.film] == gr.update(visible=False)


def test_the_page_forgets_a_visit_after_an_hour(tmp_path):
    demo = app.build_demo(Stub(), app.Examples([], drawn=False), Limits(), tmp_path)
    assert [one.time_to_live for one in demo.blocks.values() if isinstance(one, gr.State)] == [VISIT_SECONDS]
