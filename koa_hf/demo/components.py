"""Parts of the page, as Gradio components or small groups of them.

The film editor and the heat map are `gr.HTML` with a template, a style sheet and a script each, in files of their name.
They are no subclasses: Gradio writes a .pyi file beside the module of each, whenever it is imported.

Beware of Gradio's templates: what Handlebars (`{{...}}`) inserts is then evaluated as a JavaScript template literal, so
a file name with `${...}` in it would run. Only our own words and numbers go in there; everything else is text that
`page.text` has escaped, in plain `gr.HTML`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from koa_hf.demo import batch, page
from koa_hf.demo.disagreements import MAX_COMMENT
from koa_hf.demo.examples import Examples
from koa_hf.errors import KoaError
from koa_hf.grades import GRADE_NAMES, GRADES
from koa_hf.grading.examination import GradedKnee
from koa_hf.imaging.adjustment import UNADJUSTED, Adjustment, Window, auto_window
from koa_hf.imaging.localiser import MOST_KNEES, KneeBox
from koa_hf.imaging.radiograph import Radiograph

FOLDER = Path(__file__).parent


def _source(name: str) -> dict[str, str]:
    """Template, style sheet and script of a component."""
    suffixes = {"html_template": "html", "css_template": "css", "js_on_load": "js"}
    return {key: (FOLDER / f"{name}.{suffix}").read_text(encoding="utf-8") for key, suffix in suffixes.items()}


def film_editor(**options: Any) -> gr.HTML:
    """A film with a box around each knee, to be moved, resized, removed and drawn.

    Its value is a list of boxes (see `knee_boxes`). Events: `grade_boxes`, `grade_whole` for the film as it is, and
    `adjust` with a change to the film (see `changed`).
    """
    return gr.HTML([], **_source("film_editor"), **_film_properties("", 1, 1), **options)


def _film_properties(picture: str, width: int, height: int, adjustment: Adjustment = UNADJUSTED, **others) -> dict:
    """All properties of the editor but its value: an update replaces those before it."""
    window = [adjustment.window.level, adjustment.window.width]
    shown = {"mirrored": adjustment.mirrored, "inverted": adjustment.inverted, "window": window}
    size = {"picture": picture, "width": width, "height": height, "most": MOST_KNEES}
    return {**size, **shown, "knees": [], "auto": window, "missed": None, **others}


def film_update(
    original: Radiograph,
    boxes: Sequence[KneeBox],
    found: Sequence[KneeBox] | None = None,
    adjustment: Adjustment = UNADJUSTED,
) -> dict:
    """Show a film in the editor.

    Args:
        original: the film as it was read.
        boxes: on the adjusted film.
        found: where knees were found, if the boxes are somebody's; a box that is moved there takes that knee's side.
        adjustment: of the film.
    """
    film = adjustment.unwindowed().applied_to(original)  # the editor shows the window itself
    height, width = film.pixels.shape
    auto = auto_window(film)
    properties = _film_properties(
        page.picture_uri(film),
        width,
        height,
        adjustment,
        knees=[_place(box) for box in (*boxes, *(found or ())) if box.side and not box.side_by_user],
        auto=[auto.level, auto.width],
        missed=room_for_another(boxes, width) if found is None else None,
    )
    return gr.update(value=[{**_place(box), "by_user": box.side_by_user} for box in boxes], visible=True, **properties)


def room_for_another(boxes: Sequence[KneeBox], width: int) -> list[int] | None:
    """A box beside the only one on a film of that width, at the same height, if there is room for a second knee."""
    if len(boxes) != 1:
        return None
    left, top, right, bottom = map(int, boxes[0].box)
    middle, side = (left + right) // 2, right - left
    other = width - middle  # the knees of a pair lie about as far from the film's middle
    if abs(other - middle) < side or not side // 3 <= other <= width - side // 3:
        return None
    return [other - side // 2, top, other - side // 2 + side, bottom]


def changed(adjustment: Adjustment, asked: dict) -> Adjustment:
    """The adjustment after what the visitor asked of the editor.

    Raises:
        KoaError: there is no such change; the page didn't send it.
    """
    match asked:
        case {"change": "left" | "right" as way}:
            return adjustment.turned(1 if way == "right" else -1)
        case {"change": "mirror"}:
            return dataclasses.replace(adjustment, mirrored=not adjustment.mirrored)
        case {"change": "invert"}:
            return adjustment.inverse()
        case {"change": "window", "window": [int() | float() as level, int() | float() as width]} if (
            0 <= level <= 100 and 1 <= width <= 100
        ):
            return dataclasses.replace(adjustment, window=Window(level, width))
    raise KoaError("the film can't be adjusted like that; reload the page.")


def _place(box: KneeBox) -> dict:
    return {"box": list(map(int, box.box)), "side": box.side}


def knee_boxes(value: list[dict]) -> list[KneeBox]:
    """The editor's boxes, as the visitor left them.

    Raises:
        KoaError: these are no boxes; the page didn't send them.
    """
    try:
        return [_knee_box(drawn["box"], drawn.get("side"), drawn.get("by_user")) for drawn in value]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise KoaError("a box has no four edges; reload the page.") from error


def _knee_box(edges: Sequence[float], side: object, by_user: object) -> KneeBox:
    left, top, right, bottom = map(int, edges)
    known = side if side in ("right", "left") else None
    return KneeBox((left, top, right, bottom), known, 1.0, whole=False, side_by_user=bool(known and by_user))


def heat_map(index: int) -> gr.HTML:
    """A knee beside itself with the heat map of one grade, which the visitor chooses.

    Its value is that of `koa_hf.demo.page.heat_map_layers`. `index` is the number of the knee on the page.
    """
    properties = _heat_map_properties(index)
    return gr.HTML(page.heat_map_layers(None), **_source("heat_map"), **properties, elem_classes="koa-heat-map")


def _heat_map_properties(index: int) -> dict:
    return {"index": index, "grades": list(GRADE_NAMES), "legend": page.legend_css()}


def heat_map_update(index: int, knee: GradedKnee) -> dict:
    """Show a knee; with the properties, which Gradio forgets of a component that it hides and shows again."""
    return gr.update(value=page.heat_map_layers(knee), **_heat_map_properties(index))


@dataclass(frozen=True)
class KneePanel:
    """Everything about one knee: result, heat map, reports, and what became of a reader's disagreement."""

    column: gr.Column
    result: gr.HTML
    heat_map: gr.HTML
    reports: dict[str, gr.Button]  # by the suffix of the file
    disagreement: "DisagreementForm | None"

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        sent = [self.disagreement.sent] if self.disagreement else []
        return [self.column, self.result, self.heat_map, self.reports["dcm"], *sent]


def knee_panel(index: int, with_disagreement: bool) -> KneePanel:
    """The panel of the knee with that number on the page, hidden until there is one."""
    with gr.Column(visible=False, elem_id=f"koa-knee-{index}", elem_classes="koa-knee") as column:
        with gr.Column(elem_classes="koa-graded"):
            result = gr.HTML(js_on_load=None)
            evidence = heat_map(index)
        with gr.Row(elem_classes="koa-reports"):
            reports = {
                suffix: gr.Button(label, size="sm", min_width=120)
                for suffix, label in {"pdf": "PDF report", "json": "JSON", "dcm": "DICOM report"}.items()
            }
        disagreement = disagreement_form() if with_disagreement else None
    return KneePanel(column, result, evidence, reports, disagreement)


@dataclass(frozen=True)
class DisagreementForm:
    """A reader's own grade of a knee; `sent` says what became of it."""

    grade: gr.Radio
    comment: gr.Textbox
    with_image: gr.Checkbox
    send: gr.Button
    sent: gr.HTML

    @property
    def fields(self) -> list[gr.components.Component]:
        return [self.grade, self.comment, self.with_image]


def disagreement_form() -> DisagreementForm:
    """The form, folded."""
    with gr.Accordion("I disagree", open=False, elem_classes="koa-disagree"):
        grade = gr.Radio([(f"KL {g.value} {g.name}", g.value) for g in GRADES], label="Your grade")
        label = "Why (optional; write nothing that identifies the patient)"
        comment = gr.Textbox(label=label, lines=2, max_length=MAX_COMMENT)
        with_image = gr.Checkbox(False, label="Keep this X-ray with my grade, for research")
        send = gr.Button("Send", size="sm", elem_classes="koa-send")
        sent = gr.HTML(js_on_load=None)
    return DisagreementForm(grade, comment, with_image, send, sent)


@dataclass(frozen=True)
class ResultsTable:
    """The table of a batch, a row for each knee, and its buttons for a CSV file and for the reports of all knees."""

    column: gr.Column
    rows: gr.Dataframe
    csv: gr.Button
    reports: gr.Button


def results_table() -> ResultsTable:
    """The table, hidden until there is a batch."""
    with gr.Column(visible=False, elem_id="koa-batch") as column:
        rows = gr.Dataframe(
            headers=list(batch.TABLE_COLUMNS),
            datatype=["number", *["str"] * (len(batch.TABLE_COLUMNS) - 1)],
            column_widths=["5%", "22%", "10%", "16%", "10%", "14%", "23%"],
            label="Results: select a row to see that X-ray",
            interactive=False,
            wrap=True,
            max_height=420,
            buttons=["fullscreen"],
            elem_id="koa-table",
        )
        with gr.Row(elem_classes="koa-reports"):
            csv = gr.Button("Download as CSV", size="sm", min_width=120)
            reports = gr.Button("All reports as a zip", size="sm", min_width=150)
    return ResultsTable(column, rows, csv, reports)


def example_buttons(examples: Examples) -> list[gr.Button]:
    """A button for each example, under a heading; the style sheet puts their pictures on them."""
    gr.HTML(page.examples_heading_html(examples.drawn), js_on_load=None)
    with gr.Row(elem_id="koa-examples"):
        return [
            gr.Button(label, size="sm", min_width=0, elem_id=f"koa-example-{i}")
            for i, (label, _) in enumerate(examples.films)
        ]
