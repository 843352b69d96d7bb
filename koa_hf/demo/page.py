"""What the demo shows, as HTML: results, pictures, the film with its boxes, and every state that isn't a result.

Nothing here knows Gradio. Words from outside (file names, a model's note) go through `text`; pictures are in the page
itself, so that no file is left on the server for them.
"""

import base64
import functools
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from koa_hf.demo.batch import Row
from koa_hf.grades import GRADES, NUM_GRADES
from koa_hf.grading import heatmap
from koa_hf.grading.examination import GradedKnee
from koa_hf.grading.result import Grading, KneeGrader, percent
from koa_hf.imaging import phantom
from koa_hf.imaging.localiser import KneeBox
from koa_hf.imaging.radiograph import Radiograph

FOLDER = Path(__file__).parent
SCRIPT = (FOLDER / "page.js").read_text(encoding="utf-8")
"""What the HTML below does in the browser; `js_on_load` of every `gr.HTML` that holds any of it."""

FULL_SIZE = 2400  # pixels on the longer side: the full resolution of a knee, and all that a screen shows of a film
# Pixels; above, a PNG of a noisy film is megabytes, and JPEG at this quality can't be told from it.
LOSSLESS = 512 * 512
JPEG_QUALITY = 95
LAYER_SIZE = 160  # pixels of a heat map's longer side: it has about ten cells, and the browser enlarges smoothly
SCHEMATIC_SIZE = 112
DEFAULT_OPACITY = 60  # percent


def text(value: object) -> str:
    """Escape for HTML. File names are other people's words: braces and `$` mean something to Gradio's templates."""
    escaped = html.escape(str(value))
    return escaped.translate({ord(character): f"&#{ord(character)};" for character in "{}$`"})


def data_uri(image: Image.Image, quality: int | None = None) -> str:
    """An image as the address of itself: PNG, or JPEG of that quality."""
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=quality)
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def header_html(grader: KneeGrader) -> str:
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
        "<p>Drop a knee X-ray on the field, or choose files. Grades appear here, usually within a second.</p>"
        f"{scale_html()}</section>"
    )


def error_html(sentence: str) -> str:
    return message_html("This file could not be graded", sentence, "error")


def message_html(heading: str, sentence: str, kind: str) -> str:
    """A card that says one thing. `kind` is `error` (nothing came of it) or `caution` (read this first)."""
    return f'<section class="card {kind}" role="alert"><h2>{text(heading)}</h2><p>{text(sentence)}</p></section>'


def sent_html(sentence: str, failed: bool = False) -> str:
    """What became of a reader's remark."""
    return f'<p class="sent{" failed" if failed else ""}" role="status">{text(sentence)}</p>'


def batch_html(rows: Sequence[Row], files: int) -> str:
    """How far a batch of so many files is."""
    failed = sum(row.grading is None for row in rows)
    done = failed + len({(row.file, id(row.data)) for row in rows if row.grading})
    said = f"Graded {done - failed} of {files} files" + (f"; {failed} could not be graded." if failed else ".")
    busy = done < files
    return (
        f'<section class="card batch" aria-busy="{str(busy).lower()}"><h2>{"Grading" if busy else "Results"}</h2>'
        f'<p role="status">{said}</p>'
        f'<progress max="{files}" value="{done}" aria-label="Files done"></progress></section>'
    )


@functools.cache
def scale_html() -> str:
    """What the five grades mean, each with a drawn knee."""
    rows = []
    for grade in GRADES:
        knee = Image.fromarray(phantom.draw_knee(grade.value, seed=grade.value)).resize(
            (SCHEMATIC_SIZE, SCHEMATIC_SIZE)
        )
        rows.append(
            f'<li><img src="{data_uri(knee, 85)}" alt="Drawn knee with KL {grade.value}" width="{SCHEMATIC_SIZE}" '
            f'height="{SCHEMATIC_SIZE}"><p><b>KL {grade.value}</b> {grade.name}<br>'
            f"<span>{text(grade.definition)}</span></p></li>"
        )
    return f'<ul class="scale">{"".join(rows)}</ul>'


def said_by_file(one: Radiograph) -> tuple[str, ...]:
    """Sentences on what the file says of itself and how it was read."""
    known = ", ".join(filter(None, (one.side and f"{one.side} knee", one.view and f"{one.view} view")))
    return (f"According to the file: {known}.", *one.notes) if known else one.notes


def knee_html(knee: GradedKnee, slot: int, film: Radiograph, drawn: bool = False) -> str:
    """One knee: the grade, what it rests on, and where the model looked.

    All of that is folded away for an image unlike the training knees, unless it is one that we have `drawn`.

    Args:
        slot: which result of the page this is, 0 or 1.
        film: the whole image, as it was read; what the file says of itself is shown with it.
    """
    grading = knee.grading
    remarks = " ".join(map(text, (film.name, *(f"· {remark}" for remark in said_by_file(film)))))
    where = f'<p class="side">{text(knee_name(knee, slot))}</p>' if grading.box else ""
    # What was noted of the knee itself, and not of the film that it was cut from.
    cautions = "".join(f'<p class="noted">{text(note)}</p>' for note in grading.notes if note not in film.notes)
    source = f'<p class="file">{remarks}</p>{where}{cautions}'
    evidence = pictures_html(knee, slot)
    if grading.familiar is False:
        what = "A drawing, not an X-ray" if drawn else "Unlike the knees that this model was trained on"
        advice = (
            "Its grade shows how this page works, and nothing else."
            if drawn
            else "Check that it is one knee, from the front, upright and cropped to the joint. "
            "A grade for anything else means little, however sure it looks."
        )
        return (
            f'<div class="knee"><section class="card unfamiliar{" drawn" if drawn else ""}" role="alert">{source}'
            f"<h2>{what}</h2>"
            f"<p>{advice} <span>(distance {grading.unfamiliarity:.1f} times the limit)</span></p>"
            f"<details{' open' if drawn else ''}><summary>Show the grade anyway</summary>"
            f'<div class="graded">{grade_html(grading)}</div>{evidence}</details></section></div>'
        )
    return f'<div class="knee"><section class="card">{source}{grade_html(grading)}</section>{evidence}</div>'


def knee_name(knee: GradedKnee, slot: int) -> str:
    """What to call one of a film's knees: by its side, or else by its place."""
    return f"{knee.grading.side.capitalize()} knee" if knee.grading.side else f"Knee {slot + 1}, from the left"


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
        f"{RIGHTED if grading.inverted else ''}{TURNED if grading.turned else ''}"
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
TURNED = '<p class="righted">This X-ray was upside down; it was turned by 180 degrees before it was graded.</p>'


def range_html(grading: Grading) -> str:
    if grading.grade_set is None:
        return ""
    said = f"KL {grading.grade}, {grading.range_in_words}"
    share = f"such ranges hold the reader's grade in {grading.coverage:.0%} of knees"
    return f'<p class="range"><b>{said}</b> <span>({share})</span></p>'


def pictures_html(knee: GradedKnee, slot: int) -> str:
    """The knee beside itself with the heat map: one layer for each grade, of which the page shows one."""
    grading = knee.grading
    source = picture_uri(knee.radiograph)
    height, width = knee.radiograph.pixels.shape
    shrink = min(1, LAYER_SIZE / max(height, width))
    layers, choices = [], []
    for grade in GRADES:
        evidence = heatmap.for_grade(grading.heatmap, grade.value)
        said = f"Heat map of the evidence for KL {grade.value}, {grade.name}" + ("" if evidence.any() else ": none")
        layer = heatmap.upsample(evidence, max(1, round(height * shrink)), max(1, round(width * shrink)))
        layers.append(
            f'<img class="layer" data-grade="{grade.value}" alt="{said}" '
            f'src="{data_uri(Image.fromarray(heatmap.colour(layer)))}">'
        )
        chosen = " checked" if grade.value == grading.grade else ""
        choices.append(
            f'<label><input type="radio" name="koa-evidence-{slot}" value="{grade.value}"{chosen}>'
            f"<span>KL {grade.value}</span></label>"
        )
    enlarge = '<button type="button" class="enlarge" aria-haspopup="dialog">Enlarge</button>'
    return (
        '<div class="evidence"><div class="pictures">'
        f'<figure><div class="stack"><img src="{source}" alt="The X-ray as it was read"></div>'
        f"<figcaption>X-ray, {width} by {height} pixels {enlarge}</figcaption></figure>"
        f'<figure><div class="stack"><img src="{source}" alt="">{"".join(layers)}</div>'
        '<figcaption>Where the model looked <span class="legend">less<i aria-hidden="true"></i>more</span>'
        f"{enlarge}</figcaption></figure></div>"
        f'<div class="controls"><fieldset><legend>Show the evidence for</legend>{"".join(choices)}</fieldset>'
        f'<div class="opacity"><label for="koa-opacity-{slot}">Heat map opacity (%)</label> '
        f"<output>{DEFAULT_OPACITY}</output>"
        f'<input type="range" id="koa-opacity-{slot}" min="0" max="100" value="{DEFAULT_OPACITY}"></div></div>'
        '<p class="hint">Each grade is scaled to its own strongest evidence, so colours compare places within one '
        "grade, not one grade with another.</p></div>"
    )


def picture_uri(one: Radiograph) -> str:
    """An X-ray for the page, at full resolution up to `FULL_SIZE`."""
    image = one.image
    image.thumbnail((FULL_SIZE, FULL_SIZE))
    return data_uri(image, None if image.width * image.height <= LOSSLESS else JPEG_QUALITY)


def film_html(film: Radiograph, knees: Sequence[KneeBox], most: int) -> str:
    """The whole film with a box around each knee, to be moved, resized, removed and drawn; at most `most` of them."""
    height, width = film.pixels.shape
    boxes = "".join(
        f'<div class="box" data-side="{knee.side or ""}" data-box="{",".join(map(str, knee.box))}"></div>'
        for knee in knees
    )
    return (
        f'<section class="card film" data-width="{width}" data-height="{height}" data-most="{most}">'
        "<h2>The whole film</h2>"
        "<p>Drag a box, or use the arrow keys, to move it; drag a corner, or press plus and minus, to resize it. "
        "Drag on the film to draw a new one.</p>"
        f'<div class="canvas"><img src="{picture_uri(film)}" alt="The whole film" draggable="false">{boxes}</div>'
        '<p class="status" role="status"></p>'
        '<div class="actions"><button type="button" class="grade-boxes">Grade the boxes</button>'
        '<button type="button" class="add-box">Add a box</button>'
        '<button type="button" class="grade-whole">Grade the image as it is</button></div></section>'
    )


def style(examples: Sequence[Radiograph]) -> str:
    """The style sheet: the legend shows the heat map's own colours, the example buttons their pictures."""
    steps = [heatmap.colour(np.full((1, 1), i / 6))[0, 0, :3] for i in range(7)]
    legend = ", ".join(f"rgb({r} {g} {b} / {i / 6:.2f})" for i, (r, g, b) in enumerate(steps))
    rules = [
        f'.knee:has(input[type="radio"][value="{grade.value}"]:checked) .layer[data-grade="{grade.value}"] '
        "{ display: block; }"
        for grade in GRADES
    ]
    for i, example in enumerate(examples):
        image = example.image
        image.thumbnail((144, 144))
        rules.append(f"#koa-examples #koa-example-{i}::before {{ background-image: url({data_uri(image)}); }}")
    return "\n".join(((FOLDER / "page.css").read_text(encoding="utf-8").replace("LEGEND", legend), *rules))
