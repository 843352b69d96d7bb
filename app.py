"""The web demo: upload a knee X-ray, read its KL grade, how sure the model is, and where it looked.

    python app.py                                     # the bundled model, at http://127.0.0.1:7860
    python app.py --model runs/paper                  # a model folder
    python app.py --model user/koa-xception           # a model on the Hugging Face Hub
    python app.py --host 0.0.0.0 --port 8080 --examples my-xrays/

From a program, the same grader:

    from gradio_client import Client, handle_file
    Client("http://127.0.0.1:7860").predict(handle_file("knee.png"), api_name="/grade")
"""

import argparse
import base64
import html
import io
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Read when gradio is imported: nothing about the visitors, or the fact that somebody runs this, leaves the machine.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np
from PIL import Image

from koa_hf import heatmap, phantom, radiograph
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grader import Grader, Grading, percent
from koa_hf.grades import GRADES, NUM_GRADES, RESEARCH_USE_NOTICE
from koa_hf.radiograph import Radiograph

DISPLAY_SIZE = 640  # pixels on the longer side: sharp at the size shown, and light over a hospital's network
MAX_EXAMPLES = 10
DEFAULT_OPACITY = 60  # percent
# A finished upload isn't needed again. Every minute, files older than that minute are deleted.
DELETE_UPLOADS = (60, 60)

# The overlay's opacity and the chosen grade live in the page: the layers for all five grades are sent with the
# result, so neither control has to ask the server, and both answer at once.
SHOW_OPACITY = "(percent) => document.getElementById('koa-main').style.setProperty('--koa-opacity', percent / 100)"
SHOW_EVIDENCE = "(grade) => { document.getElementById('koa-main').dataset.evidence = grade }"
# On a phone the result lies below the fold.
SHOW_RESULT = """(grade) => {
    document.getElementById('koa-main').dataset.evidence = grade;
    const result = document.getElementById('koa-result');
    if (result.getBoundingClientRect().top > window.innerHeight / 2) result.scrollIntoView({ behavior: 'smooth' });
}"""


def build_demo(grader: Grader, examples: list[tuple[str, Radiograph]], drawn: bool) -> gr.Blocks:
    """The page. `examples` are (button text, X-ray); `drawn` says that they are phantoms, no real X-rays."""
    with gr.Blocks(
        title="Knee X-ray grading", analytics_enabled=False, delete_cache=DELETE_UPLOADS, fill_width=False
    ) as demo:
        gr.HTML(f'<p class="notice" role="note">{text(RESEARCH_USE_NOTICE)}</p>', elem_id="koa-notice")
        gr.HTML(header_html(grader), elem_id="koa-header")
        with gr.Row(elem_id="koa-main"):
            with gr.Column(scale=2, min_width=300):
                upload = gr.File(label="Knee X-ray", height=170, elem_id="koa-upload")
                gr.HTML(
                    '<p class="hint">One knee, from the front, cropped to the joint. DICOM, PNG, JPEG, TIFF, WebP or '
                    "BMP. The file is deleted within two minutes; nothing is kept.</p>"
                )
                if examples:
                    heading = "Or try a drawn knee" if drawn else "Examples"
                    aside = "<p>Drawings with a known grade, not X-rays of people.</p>" if drawn else ""
                    gr.HTML(f'<div class="hint"><h2>{heading}</h2>{aside}</div>')
                    with gr.Row(elem_id="koa-examples"):
                        buttons = [
                            gr.Button(label, size="sm", min_width=0, elem_id=f"koa-example-{i}")
                            for i, (label, _) in enumerate(examples)
                        ]
            with gr.Column(scale=5, min_width=320):
                result = gr.HTML(empty_html(), elem_id="koa-result")
                with gr.Column(visible=False, elem_id="koa-evidence") as evidence:
                    pictures = gr.HTML(elem_id="koa-pictures")
                    with gr.Row(elem_id="koa-controls"):
                        grade_choice = gr.Radio(
                            choices=[(str(grade.value), grade.value) for grade in GRADES],
                            value=0,
                            label="Show the evidence for KL",
                            scale=3,
                            min_width=280,
                            elem_id="koa-grade",
                        )
                        opacity = gr.Slider(
                            0,
                            100,
                            DEFAULT_OPACITY,
                            step=1,
                            label="Heat map opacity (%)",
                            scale=2,
                            min_width=220,
                            buttons=[],
                            elem_id="koa-opacity",
                        )
                    clear = gr.Button("Clear", size="sm", elem_id="koa-clear")

        gr.HTML('<footer><a href="?view=api">Grade from a program (API)</a></footer>', elem_id="koa-footer")

        outputs = [upload, result, evidence, pictures, grade_choice]

        def show(source: radiograph.ImageSource, drawn: bool = False) -> tuple:
            # The upload field is emptied, so that the next X-ray can be dropped on it straight away.
            try:
                one = radiograph.read(source)
                grading = grader.grade(one)
            except KoaError as error:
                return None, error_html(str(error)), gr.update(visible=False), "", 0
            card = result_html(grading, drawn, said_by_file(one))
            return None, card, gr.update(visible=True), pictures_html(one, grading), grading.grade

        def show_nothing() -> tuple:
            return None, empty_html(), gr.update(visible=False), "", 0

        def private(event, function, inputs=None) -> None:
            event(
                function,
                inputs,
                outputs,
                api_visibility="private",
                show_progress="minimal",
                show_progress_on=result,
                concurrency_id="grader",
            ).then(None, grade_choice, js=SHOW_RESULT, api_visibility="private")

        private(upload.upload, show, upload)
        private(clear.click, show_nothing)
        for button, (_, example) in zip(buttons if examples else [], examples, strict=True):
            private(button.click, lambda example=example: show(example, drawn))
        grade_choice.input(None, grade_choice, js=SHOW_EVIDENCE, api_visibility="private")
        opacity.change(None, opacity, js=SHOW_OPACITY, api_visibility="private")

        def grade(image: str) -> dict:
            try:
                if not image:
                    raise KoaError("no X-ray was given; pass handle_file('knee.png').")
                return grader.grade(image).to_dict()
            except KoaError as error:
                raise gr.Error(str(error), print_exception=False) from error

        api_input = gr.File(label=f"One knee X-ray ({radiograph.FORMATS})", visible=False)
        api_output = gr.JSON(label="Grading", visible=False)
        gr.Button(visible=False).click(
            grade,
            api_input,
            api_output,
            api_name="grade",
            api_description="Grade one knee X-ray. Returns source (str), grade (int, KL 0 to 4), name (str), "
            "probabilities (five floats, KL 0 to 4, summing to 1), calibrated (bool), expected_grade (float, 0 to 4), "
            "grade_set (lowest and highest grade) and coverage (share of knees whose set holds the reader's grade), "
            "familiar (bool) and unfamiliarity (float, over 1 is unfamiliar), inverted (bool: a negative, righted), "
            "model (str), revision (str), seconds (float); what the model can't tell is null. "
            f"An unreadable file is an error of one sentence. {RESEARCH_USE_NOTICE}",
            concurrency_id="grader",
        )
    return demo


def text(value: object) -> str:
    """Escape for HTML. File names are other people's words: braces and `$` mean something to Gradio's templates."""
    escaped = html.escape(str(value))
    return escaped.translate({ord(character): f"&#{ord(character)};" for character in "{}$`"})


def data_uri(image: Image.Image) -> str:
    """An image in the page itself: no file is left on the server for it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def header_html(grader: Grader) -> str:
    note = f'<p class="note" role="note"><b>About this model:</b> {text(grader.note)}</p>' if grader.note else ""
    return (
        "<header><h1>Knee X-ray grading</h1>"
        "<p>Osteoarthritis on the Kellgren-Lawrence (KL) scale, from 0 (none) to 4 (severe), "
        "and where in the X-ray the model saw it.</p>"
        f'<p class="model">Model <b>{text(grader.model_id)}</b>, version {text(grader.revision[:12])}</p>'
        f"</header>{note}"
    )


def empty_html() -> str:
    return (
        '<section class="card empty"><h2>No X-ray yet</h2>'
        "<p>Drop a knee X-ray on the field, or choose a file. Its grade appears here, usually within a second.</p>"
        f"{scale_html()}</section>"
    )


def error_html(sentence: str) -> str:
    return (
        '<section class="card error" role="alert"><h2>This file could not be graded</h2>'
        f"<p>{text(sentence)}</p></section>"
    )


def scale_html() -> str:
    """What the five grades mean."""
    rows = "".join(f"<dt>KL {g.value} <span>{g.name}</span></dt><dd>{text(g.definition)}</dd>" for g in GRADES)
    return f"<dl>{rows}</dl>"


def said_by_file(one: Radiograph) -> tuple[str, ...]:
    """Sentences on what the file says of itself and how it was read."""
    known = ", ".join(filter(None, (one.side and f"{one.side} knee", one.view and f"{one.view} view")))
    return (f"According to the file: {known}.", *one.notes) if known else one.notes


def result_html(grading: Grading, drawn: bool = False, remarks: Sequence[str] = ()) -> str:
    """The grade and what it rests on; folded away for an unfamiliar image, unless it is one that we have `drawn`."""
    source = f'<p class="file">{" ".join(map(text, (grading.source, *(f"· {remark}" for remark in remarks))))}</p>'
    if grading.familiar is False:
        what = "A drawing, not an X-ray" if drawn else "Unlike the knees that this model was trained on"
        advice = (
            "Its grade shows how this page works, and nothing else."
            if drawn
            else "Check that it is one knee, from the front, upright and cropped to the joint. "
            "A grade for anything else means little, however sure it looks."
        )
        return (
            f'<section class="card unfamiliar" role="alert">{source}<h2>{what}</h2>'
            f"<p>{advice} <span>(distance {grading.unfamiliarity:.1f} times the limit)</span></p>"
            f"<details{' open' if drawn else ''}><summary>Show the grade anyway</summary>"
            f"{grade_html(grading)}</details></section>"
        )
    return f'<section class="card">{source}{grade_html(grading)}</section>'


def grade_html(grading: Grading) -> str:
    rows = []
    for grade, probability in zip(GRADES, grading.probabilities, strict=True):
        chosen = ' class="chosen"' if grade.value == grading.grade else ""
        rows.append(
            f'<tr{chosen}><th scope="row">KL {grade.value} <span>{grade.name}</span></th>'
            f'<td class="bar" aria-hidden="true"><i style="width:{probability * 100:.1f}%"></i></td>'
            f'<td class="percent">{text(percent(probability))}</td></tr>'
        )
    position = grading.expected_grade / (NUM_GRADES - 1) * 100
    ticks = "".join(f"<li>{grade.value}</li>" for grade in GRADES)
    return (
        f'<h2 class="grade"><span class="kl">KL {grading.grade}</span> '
        f'<span class="dot" aria-hidden="true">·</span> <span class="name">{grading.name}</span></h2>'
        f'<p class="certainty">{text(grading.certainty)}.</p>'
        f"{range_html(grading)}"
        f"{RIGHTED if grading.inverted else ''}"
        f'<div class="columns"><div>'
        f'<p class="definition"><b>KL {grading.grade} means:</b> {text(GRADES[grading.grade].definition)}</p>'
        f'<div class="expected"><p>Expected grade <b>{grading.expected_grade:.1f}</b> '
        "<span>on the scale from 0 to 4, the mean of the probabilities</span></p>"
        f'<div class="axis" aria-hidden="true"><i style="left:{position:.1f}%"></i><ol>{ticks}</ol></div></div></div>'
        f"<table><caption>Probability of each grade</caption><tbody>{''.join(rows)}</tbody></table></div>"
        f"<details><summary>What the five grades mean</summary>{scale_html()}</details>"
        f'<p class="made">Graded in {grading.seconds:.2f} s by {text(grading.model)}, '
        f"version {text(grading.revision[:12])}.</p>"
    )


RIGHTED = '<p class="righted">This was a photographic negative (bone dark); it was inverted before it was graded.</p>'


def range_html(grading: Grading) -> str:
    if grading.grade_set is None:
        return ""
    said = f"KL {grading.grade}, {grading.range_in_words}"
    share = f"such ranges hold the reader's grade in {grading.coverage:.0%} of knees"
    return f'<p class="range"><b>{said}</b> <span>({share})</span></p>'


def pictures_html(one: Radiograph, grading: Grading) -> str:
    """The X-ray beside itself with the heat map: one layer for each grade, of which the page shows one."""
    image = one.image
    image.thumbnail((DISPLAY_SIZE, DISPLAY_SIZE))
    source = data_uri(image)
    layers = []
    for grade in GRADES:
        evidence = heatmap.for_grade(grading.heatmap, grade.value)
        said = f"Heat map of the evidence for KL {grade.value}, {grade.name}" + ("" if evidence.any() else ": none")
        layer = heatmap.colour(heatmap.upsample(evidence, max(1, image.height // 2), max(1, image.width // 2)))
        layers.append(
            f'<img class="layer" data-grade="{grade.value}" alt="{said}" src="{data_uri(Image.fromarray(layer))}">'
        )
    return (
        '<div class="pictures">'
        f'<figure><img src="{source}" alt="The X-ray as it was read"><figcaption>X-ray</figcaption></figure>'
        f'<figure><div class="stack"><img src="{source}" alt="">{"".join(layers)}</div>'
        '<figcaption>Where the model looked <span class="legend">less<i aria-hidden="true"></i>more</span>'
        "</figcaption></figure></div>"
        '<p class="hint">Each grade is scaled to its own strongest evidence, so colours compare places within one '
        "grade, not one grade with another.</p>"
    )


def thumbnails_css(examples: list[tuple[str, Radiograph]]) -> str:
    rules = []
    for i, (_, example) in enumerate(examples):
        image = example.image
        image.thumbnail((144, 144))
        rules.append(f"#koa-examples #koa-example-{i}::before {{ background-image: url({data_uri(image)}); }}")
    return "\n".join(rules)


def drawn_examples() -> list[tuple[str, Radiograph]]:
    """One drawn knee for each grade."""
    return [
        (f"KL {grade.value}", Radiograph(phantom.draw(grade.value, seed=grade.value), f"drawn knee, KL {grade.value}"))
        for grade in GRADES
    ]


def examples_in(folder: Path) -> list[tuple[str, Radiograph]]:
    """The first X-rays of a folder, by name."""
    if not folder.is_dir():
        raise KoaError(f"{folder} is not a folder; give --examples a folder of X-rays.")
    files = sorted(filter(radiograph.is_radiograph_file, folder.iterdir()))
    if not files:
        raise KoaError(f"{folder} holds no X-rays ({radiograph.FORMATS}).")
    return [(file.stem, radiograph.read(file)) for file in files[:MAX_EXAMPLES]]


# System fonts only: the page makes no request to anybody else's server.
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    secondary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    font=FONTS,
    font_mono=("ui-monospace", "Consolas", "monospace"),
).set(
    body_background_fill="#f4f7f9",
    body_background_fill_dark="#0c1319",
    block_background_fill="#ffffff",
    block_background_fill_dark="#141e26",
    block_border_color="#d8e0e6",
    block_border_color_dark="#2a3843",
    block_label_text_color="#40525f",
    block_label_text_color_dark="#b9c6d0",
    block_label_background_fill="#ffffff",
    block_label_background_fill_dark="#141e26",
    button_secondary_background_fill="#ffffff",
    button_secondary_background_fill_dark="#141e26",
    button_secondary_background_fill_hover="#eef3f5",
    button_secondary_background_fill_hover_dark="#22303a",
    button_secondary_border_color="#c3ced6",
    button_secondary_border_color_dark="#3a4b57",
    checkbox_label_background_fill="#eef3f5",
    checkbox_label_background_fill_dark="#22303a",
    input_background_fill_dark="#0c1319",
    body_text_color="#13212b",
    body_text_color_dark="#e8eff4",
    body_text_color_subdued="#4c5f6d",
    body_text_color_subdued_dark="#a9b8c4",
)

CSS = """
:root, .gradio-container {
  --koa-ink: #13212b; --koa-soft: #4c5f6d; --koa-card: #fff; --koa-line: #d8e0e6;
  --koa-accent: #0f766e; --koa-pale: #a9bfc6; --koa-track: #e9eef1;
  --koa-warn: #7a3e00; --koa-warn-fill: #fff3dd; --koa-warn-line: #e9b76a;
  --koa-error: #9b1c1c; --koa-error-fill: #fdf1f0;
}
.dark .gradio-container, .dark.gradio-container, body.dark {
  --koa-ink: #e8eff4; --koa-soft: #a9b8c4; --koa-card: #141e26; --koa-line: #2a3843;
  --koa-accent: #4fd1c0; --koa-pale: #53707c; --koa-track: #22303a;
  --koa-warn: #ffd79a; --koa-warn-fill: #33260f; --koa-warn-line: #8a6523;
  --koa-error: #ffb4ab; --koa-error-fill: #341a19;
}
.gradio-container { max-width: 1120px !important; margin: 0 auto !important;
  overflow: clip !important; /* not hidden: that would keep the notice from sticking */ }
.gradio-container .html-container { padding: 0; }
#koa-notice { position: sticky; top: 0; z-index: 20; overflow: visible; }
#koa-notice .notice { margin: 0; padding: 7px 14px; text-align: center; font-size: 13.5px; line-height: 1.4;
  color: var(--koa-warn); background: var(--koa-warn-fill); border: 1px solid var(--koa-warn-line);
  border-radius: 8px; }
#koa-header h1 { font-size: 26px; line-height: 1.2; font-weight: 650; letter-spacing: -.01em; margin: 6px 0 4px;
  color: var(--koa-ink); }
#koa-header p { margin: 0; color: var(--koa-soft); font-size: 15.5px; }
#koa-header .model { font-size: 13.5px; margin-top: 4px; overflow-wrap: anywhere; }
#koa-header .note { margin-top: 12px; padding: 10px 14px; border-left: 4px solid var(--koa-warn-line);
  background: var(--koa-warn-fill); color: var(--koa-warn); border-radius: 4px; }
.hint, .hint p { color: var(--koa-soft); font-size: 13.5px; line-height: 1.5; margin: 0; }
.hint h2 { font-size: 15px; font-weight: 600; margin: 8px 0 0; color: var(--koa-ink); }

#koa-examples { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 8px; }
#koa-examples button { flex-direction: column; padding: 5px 3px; gap: 4px; min-width: 0; font-weight: 500;
  overflow-wrap: anywhere; background: var(--koa-card); border: 1px solid var(--koa-line); color: var(--koa-ink); }
#koa-examples button:hover { border-color: var(--koa-accent); }
#koa-examples button::before { content: ""; width: 100%; aspect-ratio: 1; border-radius: 5px;
  background: #000 center / contain no-repeat; }
.gradio-container button:focus-visible, .gradio-container summary:focus-visible,
.gradio-container input:focus-visible { outline: 3px solid var(--koa-accent); outline-offset: 2px; }

.card { background: var(--koa-card); border: 1px solid var(--koa-line); border-radius: 12px; padding: 20px 24px;
  color: var(--koa-ink); }
.card p { margin: 0; color: var(--koa-ink); }
.card h2 { color: var(--koa-ink); margin: 0 0 6px; font-size: 19px; font-weight: 600; }
.card .file { color: var(--koa-soft); font-size: 13.5px; overflow-wrap: anywhere; }
.card h2.grade { font-size: clamp(34px, 6vw, 46px); line-height: 1.15; font-weight: 400; letter-spacing: -.02em;
  margin: 2px 0 4px; }
.card .kl { font-weight: 700; color: var(--koa-accent); }
.card .dot { color: var(--koa-pale); }
.card .certainty { font-size: 17px; }
.card .range { margin-top: 4px; font-size: 15px; }
.card .range span, .card.unfamiliar > p span { color: var(--koa-soft); font-size: 13.5px; }
.card .righted { margin-top: 6px; font-size: 14.5px; color: var(--koa-warn); }
.card.unfamiliar { background: var(--koa-warn-fill); border-color: var(--koa-warn-line); }
.card.unfamiliar > h2, .card.unfamiliar > p, .card.unfamiliar > p span { color: var(--koa-warn); }
.card.unfamiliar > details > :not(summary) { filter: grayscale(1); }
.card .definition { color: var(--koa-soft); line-height: 1.5; }
.card .definition b { color: var(--koa-ink); font-weight: 600; }
.card.empty > p { color: var(--koa-soft); margin-bottom: 16px; }
.card.error { background: var(--koa-error-fill); border-color: var(--koa-error); }
.card.error h2, .card.error p { color: var(--koa-error); overflow-wrap: anywhere; }

.card .columns { display: grid; grid-template-columns: 1fr 1.15fr; gap: 8px 32px; align-items: start; margin-top: 14px; }
.card table, .card tbody, .card tr { border: 0 !important; background: none !important; }
.card table { width: 100%; border-collapse: collapse; margin: 0; table-layout: fixed; }
.card caption { text-align: left; font-size: 13.5px; color: var(--koa-soft); padding-bottom: 4px; }
.card th, .card td { padding: 4px 0; border: 0; font-weight: 400; text-align: left; font-size: 15px;
  color: var(--koa-ink); background: none; }
.card th { width: 128px; }
.card th span, .card dt span { color: var(--koa-soft); }
.card .percent { width: 62px; text-align: right; font-variant-numeric: tabular-nums; }
.card .bar { vertical-align: middle; }
.card .bar i { display: block; height: 14px; min-width: 2px; border-radius: 3px; background: var(--koa-pale); }
.card td.bar { background: linear-gradient(var(--koa-track), var(--koa-track)) center / 100% 14px no-repeat;
  border-radius: 3px; }
.card .chosen th, .card .chosen th span, .card .chosen .percent { font-weight: 700; color: var(--koa-ink); }
.card .chosen .bar i { background: var(--koa-accent); }

.card .expected { margin-top: 12px; }
.card .expected p { font-size: 15px; }
.card .expected span { color: var(--koa-soft); font-size: 13.5px; }
.axis { position: relative; margin: 16px 12px 0; border-top: 2px solid var(--koa-pale); }
.axis ol { display: flex; justify-content: space-between; list-style: none; margin: 0 -12px; padding: 0; }
.axis li { width: 24px; margin: 0; text-align: center; font-size: 13.5px; color: var(--koa-soft); position: relative;
  padding-top: 6px; }
.axis li::before { content: ""; position: absolute; top: -5px; left: 11px; height: 8px;
  border-left: 2px solid var(--koa-pale); }
.axis > i { position: absolute; top: -14px; margin-left: -7px; z-index: 1; border: 7px solid transparent;
  border-top: 12px solid var(--koa-accent); border-bottom: 0; }
.card dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 18px; margin: 0; font-size: 14.5px; }
.card dt { font-weight: 600; }
.card dt span { font-weight: 400; }
.card dd { margin: 0; color: var(--koa-soft); }
.card details { margin-top: 14px; }
.card summary { cursor: pointer; color: var(--koa-accent); font-size: 14.5px; padding: 2px 0; }
.card details dl { margin-top: 8px; }
.card .made { margin-top: 12px; font-size: 13px; color: var(--koa-soft); overflow-wrap: anywhere; }

#koa-evidence { gap: 12px; }
.pictures { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
.pictures figure { margin: 0; min-width: 0; }
.pictures img { display: block; width: 100%; max-height: 420px; object-fit: contain; margin: 0; }
.pictures figure > img, .pictures .stack { background: #000; border-radius: 10px; overflow: hidden; }
.pictures figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 2px 12px; font-size: 14px;
  margin: 6px 0 4px; color: var(--koa-soft); }
.pictures .stack { position: relative; }
.pictures .layer { display: none; position: absolute; inset: 0; height: 100%;
  opacity: var(--koa-opacity, .6); }
.legend i { display: inline-block; width: 72px; height: 10px; margin: 0 6px; border-radius: 3px;
  background: linear-gradient(90deg, LEGEND) #777; }
#koa-result { scroll-margin-top: 84px; }
#koa-footer { text-align: center; font-size: 13.5px; }
#koa-footer a { color: var(--koa-soft); }
#koa-evidence > .hint { margin: 0; }
#koa-clear { border: 1px solid var(--koa-line); align-self: flex-start; flex-grow: 0; width: auto; min-width: 120px; }
@media (max-width: 640px) {
  #koa-grade .wrap { gap: 5px; }
  #koa-grade label { padding: 6px 9px; }
  .card { padding: 16px; }
  .card th { width: 126px; }
  .card .percent { width: 50px; }
  .card .columns { grid-template-columns: 1fr; gap: 14px; }
  .card dl { grid-template-columns: 1fr; gap: 2px; }
  .card dd { margin-bottom: 8px; }
  .pictures { grid-template-columns: 1fr; }
}
@media (prefers-reduced-motion: reduce) { .gradio-container * { transition: none !important; animation: none !important; } }
"""  # noqa: E501


# Gradio confines its `css` to the inside of the page; the margins around it are set from the head.
HEAD = "<style>@media (max-width: 640px) { .gradio-container .main { padding: 12px !important; } }</style>"


def css(examples: list[tuple[str, Radiograph]]) -> str:
    """The style sheet; the legend shows the heat map's own colours."""
    steps = [heatmap.colour(np.full((1, 1), i / 6))[0, 0, :3] for i in range(7)]
    legend = ", ".join(f"rgb({r} {g} {b} / {i / 6:.2f})" for i, (r, g, b) in enumerate(steps))
    layers = "\n".join(
        f'#koa-main[data-evidence="{grade.value}"] .layer[data-grade="{grade.value}"] {{ display: block; }}'
        for grade in GRADES
    )
    return CSS.replace("LEGEND", legend) + layers + thumbnails_css(examples)


@exit_2_on_bad_input
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder or Hub id; by default KOA_MODEL, else the bundled model")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, ...; by default a GPU where there is one")
    # A Space sets Gradio's own two variables.
    host, port = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), os.environ.get("GRADIO_SERVER_PORT", "7860")
    parser.add_argument("--host", default=host, help="0.0.0.0 lets other machines in (default: %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="default: %(default)s")
    parser.add_argument("--share", action="store_true", help="make a public link through Gradio's relay")
    parser.add_argument("--examples", type=Path, help="folder of X-rays to offer; by default drawn knees")
    options = parser.parse_args(arguments)

    grader = Grader.from_pretrained(options.model, options.revision, device=options.device)
    examples = examples_in(options.examples) if options.examples else drawn_examples()
    grader.grade(examples[0][1])  # the first forward pass is slow; let no visitor wait for it
    # `kill` should tidy up as Ctrl-C does: uploads lie in a folder of our own, which goes when the server goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="koa-demo-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        demo = build_demo(grader, examples, drawn=options.examples is None)
        print(f"grading with {grader.model_id}, version {grader.revision[:12]}", flush=True)
        try:
            demo.launch(
                server_name=options.host,
                server_port=options.port,
                share=options.share,
                theme=THEME,
                css=css(examples),
                head=HEAD,
                footer_links=[],
                ssr_mode=False,
                max_file_size="200mb",
            )
        except OSError as error:
            raise KoaError(
                f"can't serve at {options.host}:{options.port}: the port is taken or the host isn't this machine's; "
                "give another --port or --host."
            ) from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
