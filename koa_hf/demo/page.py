"""The page's HTML and style: results, pictures, and every state that isn't a result.

Knows nothing of Gradio. Words from outside (file names, a model's note) go through `text`; pictures are data URIs, so
that no file is left on the server for them.
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
from koa_hf.grades import GRADES, NUM_GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading import heatmap
from koa_hf.grading.examination import GradedKnee
from koa_hf.grading.result import Grading, KneeGrader, percent
from koa_hf.imaging import phantom
from koa_hf.imaging.radiograph import Radiograph

FOLDER = Path(__file__).parent
FULL_SIZE = 2400  # pixels on the longer side: full resolution for a knee, and as much of a film as a screen shows
# Pixels. A PNG of a larger noisy film takes megabytes; JPEG at this quality looks the same.
LOSSLESS = 512 * 512
JPEG_QUALITY = 95
LAYER_SIZE = 160  # pixels on the longer side of a heat map: it has about ten cells, and the browser interpolates
SCHEMATIC_SIZE = 112


def text(value: object) -> str:
    """Escape for HTML, and the braces, `$` and backticks that Gradio's templates would evaluate in a file name."""
    escaped = html.escape(str(value))
    return escaped.translate({ord(character): f"&#{ord(character)};" for character in "{}$`"})


def data_uri(image: Image.Image, quality: int | None = None) -> str:
    """An image as a data URI: PNG, or JPEG of that quality."""
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=quality)
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def notice_html() -> str:
    return f'<p class="notice" role="note">{text(RESEARCH_USE_NOTICE)}</p>'


def header_html(grader: KneeGrader) -> str:
    note = f'<p class="note" role="note"><b>About this model:</b> {text(grader.note)}</p>' if grader.note else ""
    return (
        "<header><h1>Knee X-ray grading</h1>"
        "<p>Osteoarthritis on the Kellgren-Lawrence (KL) scale, from 0 (none) to 4 (severe), "
        "and where in the X-ray the model saw it.</p>"
        f'<p class="model">Model <b>{text(grader.model_id)}</b>, version {text(grader.revision[:12])}</p>'
        f"</header>{note}"
    )


def upload_hint_html(minutes: int) -> str:
    """Hint beside the upload field: what may be uploaded, and how long it is kept."""
    return (
        '<p class="hint">Frontal knee X-rays, cropped or the whole film; several files, or a zip, give a table. DICOM, '
        f"PNG, JPEG, TIFF, WebP or BMP. Files are deleted within {minutes} minutes; results stay in memory, for "
        "reports, until you clear them, for an hour at most.</p>"
    )


def examples_heading_html(drawn: bool) -> str:
    if not drawn:
        return '<div class="hint"><h2>Examples</h2></div>'
    aside = "Drawings, not X-rays of patients: they show what the page can do, and their grades mean nothing."
    return f'<div class="hint"><h2>Or try a drawing</h2><p>{aside}</p></div>'


def empty_html() -> str:
    return (
        '<section class="card empty"><h2>No X-ray yet</h2>'
        "<p>Drop a knee X-ray on the upload field, or choose files. Grades appear here, usually within a second.</p>"
        f"{scale_html()}</section>"
    )


def busy_html() -> str:
    return (
        '<section class="card batch alone" aria-busy="true"><h2>Grading</h2><p role="status">The X-ray is being '
        'graded; another upload takes its place.</p><progress aria-label="Grading"></progress></section>'
    )


def error_html(sentence: str) -> str:
    return message_html("This file could not be graded", sentence, "error")


def message_html(heading: str, sentence: str, kind: str) -> str:
    """A card with one message; `kind` is `error` (no result) or `caution` (a result to be read with care)."""
    return f'<section class="card {kind}" role="alert"><h2>{text(heading)}</h2><p>{text(sentence)}</p></section>'


def sent_html(sentence: str, failed: bool = False) -> str:
    """The answer to a reader's disagreement."""
    return f'<p class="sent{" failed" if failed else ""}" role="status">{text(sentence)}</p>'


def batch_html(rows: Sequence[Row], files: int) -> str:
    """Progress of a batch of that many files."""
    failed = sum(row.grading is None for row in rows)
    done = failed + len({(row.file, id(row.data)) for row in rows if row.grading})
    message = f"Graded {done - failed} of {files} files" + (f"; {failed} could not be graded." if failed else ".")
    busy = done < files
    return (
        f'<section class="card batch" aria-busy="{str(busy).lower()}"><h2>{"Grading" if busy else "Results"}</h2>'
        f'<p role="status">{message}</p>'
        f'<progress max="{files}" value="{done}" aria-label="Files done"></progress></section>'
    )


@functools.cache
def scale_html() -> str:
    """Definitions of the five grades, each with a drawn knee."""
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


def file_remarks(one: Radiograph) -> tuple[str, ...]:
    """Laterality and view as the file states them, and notes about how it was read."""
    known = ", ".join(filter(None, (one.side and f"{one.side} knee", one.view and f"{one.view} view")))
    return (f"According to the file: {known}.", *one.notes) if known else one.notes


def knee_html(knee: GradedKnee, index: int, film: Radiograph, drawn: bool = False) -> str:
    """The result of one knee: the grade and what supports it, beside the heat map.

    Grade and heat map are folded away for an out-of-distribution image, unless it is one of our drawings.

    Args:
        index: number of the knee on the page, 0 or 1.
        film: the whole image as it was read; remarks of its file are shown with the result.
        drawn: the image is a phantom.
    """
    grading = knee.grading
    remarks = " ".join(map(text, (film.name, *(f"· {remark}" for remark in file_remarks(film)))))
    by_user = " <span>(set by you)</span>" if grading.side_by_user else ""
    name = f'<p class="side">{text(knee_name(knee, index))}{by_user}</p>' if grading.box else ""
    # Notes about the knee itself, without those about the film that it was cut from.
    notes = "".join(f'<p class="noted">{text(note)}</p>' for note in grading.notes if note not in film.notes)
    cautions = "".join(f'<p class="cautioned" role="alert">{text(caution)}</p>' for caution in grading.cautions)
    source = f'<p class="file">{remarks}</p>{name}{cautions}{notes}'
    if grading.familiar is not False:
        return f'<section class="card">{source}{grade_html(grading)}</section>'
    heading = "A drawing, not an X-ray" if drawn else "Unlike the knees this model was trained on"
    advice = (
        "Its grade only demonstrates this page."
        if drawn
        else "Check that this is a frontal X-ray of one knee, upright and cropped to the joint; for anything else the "
        "grade means little."
    )
    return (
        f'<section class="card unfamiliar{" drawn" if drawn else ""}" role="alert">{source}<h2>{heading}</h2>'
        f"<p>{advice} <span>(distance {grading.unfamiliarity:.1f} times the limit)</span></p>"
        f'<details class="anyway"{" open" if drawn else ""}><summary>Show the grade anyway</summary>'
        f'<div class="graded">{grade_html(grading)}</div></details></section>'
    )


def knee_name(knee: GradedKnee, index: int) -> str:
    """A knee's name in its film: by laterality, or else by place."""
    return f"{knee.grading.side.capitalize()} knee" if knee.grading.side else f"Knee {index + 1} from the left"


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


RIGHTED = '<p class="righted">The image was a negative (bone dark) and was inverted before grading.</p>'
TURNED = '<p class="righted">The image was upside down and was rotated by 180 degrees before grading.</p>'


def range_html(grading: Grading) -> str:
    if grading.grade_set is None:
        return ""
    claim = text(grading.coverage_in_words)
    return f'<p class="range"><b>KL {grading.grade}, {grading.range_in_words}</b> <span>({claim})</span></p>'


def heat_map_layers(knee: GradedKnee | None) -> dict:
    """The knee and a heat map for each grade: the value of `koa_hf.demo.components.heat_map`.

    `layers` are pictures by grade, `empty` where there is no evidence for it; `grade` is the one to show first.
    """
    if knee is None:
        blank = [{"picture": "", "empty": True}] * NUM_GRADES
        return {"picture": "", "width": 0, "height": 0, "grade": 0, "layers": blank}
    height, width = knee.radiograph.pixels.shape
    shrink = min(1, LAYER_SIZE / max(height, width))
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    layers = []
    for grade in GRADES:
        evidence = heatmap.for_grade(knee.grading.heatmap, grade.value)
        layer = Image.fromarray(heatmap.colour(heatmap.upsample(evidence, *size)))
        layers.append({"picture": data_uri(layer), "empty": not evidence.any()})
    return {
        "picture": picture_uri(knee.radiograph),
        "width": width,
        "height": height,
        "grade": knee.grading.grade,
        "layers": layers,
    }


@functools.cache
def legend_css() -> str:
    """Colour stops of the heat map's legend."""
    steps = [heatmap.colour(np.full((1, 1), i / 6))[0, 0, :3] for i in range(7)]
    return ", ".join(f"rgb({r} {g} {b} / {i / 6:.2f})" for i, (r, g, b) in enumerate(steps))


def picture_uri(one: Radiograph) -> str:
    """An X-ray for the page, at full resolution up to `FULL_SIZE`."""
    image = one.image
    image.thumbnail((FULL_SIZE, FULL_SIZE))
    return data_uri(image, None if image.width * image.height <= LOSSLESS else JPEG_QUALITY)


def style(examples: Sequence[Radiograph]) -> str:
    """The style sheet of the page, with a picture for each example button."""
    rules = [(FOLDER / "page.css").read_text(encoding="utf-8")]
    for i, example in enumerate(examples):
        image = example.image
        image.thumbnail((144, 144))
        rules.append(f"#koa-examples #koa-example-{i}::before {{ background-image: url({data_uri(image)}); }}")
    return "\n".join(rules)
