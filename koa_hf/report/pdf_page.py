"""The page of a report: one sheet of A4, as a PDF or as a picture.

Drawn with matplotlib, which the heat map needs anyway, whose fonts have most alphabets of Europe and the Middle East,
and which draws the same page as PDF and as pixels.
"""

import functools
import io
import math
import unicodedata
from datetime import UTC

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font
from matplotlib.patches import Polygon, Rectangle
from PIL import Image, ImageFont

from koa_hf import __version__
from koa_hf.grades import GRADES, NUM_GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading import heatmap
from koa_hf.grading.result import Grading, percent
from koa_hf.imaging.localiser import Box
from koa_hf.report.document import Report

# Lengths are in millimetres from the top left corner, type sizes in points.

WIDTH, HEIGHT = 210, 297
LEFT, RIGHT, TOP, BOTTOM = 16, 194, 12, 286
COLUMN = 88  # width of the result's left column; the figures are to the right of it
PDF_DPI = 200  # of the X-rays in the PDF: enough for print, and the file stays near a megabyte
INK, SOFT, RULE, PALE = "black", "#404040", "#8c8c8c", "#d0d0d0"  # no colour: printers may be black and white
SANS = "DejaVu Sans"  # shipped with matplotlib
MISSING = "□"
POINT = 25.4 / 72
LEADING = 1.38  # line height over type size
SCREEN = 1.025  # in the picture, letters are rounded to pixels and run slightly wider than in the PDF
SMALL, LABELS = 8.5, 25  # type size of the foot, and the width of its labels


def pdf(*reports: Report) -> bytes:
    """The reports as a PDF, one A4 page each."""
    buffer = io.BytesIO()
    grades = ", ".join(f"KL {report.knee.grading.grade}" for report in reports)
    about = {
        "Title": f"Knee X-ray grading: {grades}",
        "Subject": RESEARCH_USE_NOTICE,
        "Creator": f"koa-hf {__version__}",
        "CreationDate": reports[0].time.astimezone(UTC),
    }
    with PdfPages(buffer, metadata=about) as pages:
        for report in reports:
            pages.savefig(draw(report, PDF_DPI))
    return buffer.getvalue()


def picture(report: Report, dpi: int = 150) -> Image.Image:
    """The same page as an RGB picture, 1240 x 1753 pixels at 150 dots per inch."""
    canvas = FigureCanvasAgg(draw(report, dpi))
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def draw(report: Report, dpi: float) -> Figure:
    """The page from top to bottom: the notice, warnings, the result, the pictures, and the origin of it all."""
    page = _Page(dpi)
    y = _notice(page, TOP) + 9.5
    page.text(LEFT, y, "Knee X-ray grading", 18, weight="bold")
    page.text(RIGHT, y, f"{report.time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC", 9, align="right")
    page.text(LEFT, y + 5.5, "Osteoarthritis on the Kellgren-Lawrence (KL) scale, graded by a neural network", 9)
    if side := side_in_words(report.knee.grading):
        page.text(LEFT, y + 13.5, side, 14, weight="bold")
        y += 8
    y = _result(page, report.knee.grading, _warnings(page, report.knee.grading, y + 9.5))
    below = _foot(page, report.knee.grading)
    _pictures(page, report, y, below - 4)
    return page.figure


def side_in_words(grading: Grading) -> str:
    """Laterality in words, and whether the user set it; empty if it is unknown."""
    if grading.side is None:
        return ""
    return f"{grading.side.capitalize()} knee{', set by the user' if grading.side_by_user else ''}"


def _notice(page: "_Page", y: float) -> float:
    page.rectangle(LEFT, y, RIGHT - LEFT, 11, line=1)
    page.rectangle(LEFT, y, 38, 11, fill=INK)
    page.text(LEFT + 19, y + 6.7, "RESEARCH USE", 11, weight="bold", colour="white", align="centre")
    page.paragraph(LEFT + 42, y + 1.2, RIGHT - LEFT - 45, RESEARCH_USE_NOTICE, 9, weight="bold")
    return y + 11


def _out_of_distribution(grading: Grading) -> bool:
    """True if the image is out of distribution: coverage, calibration and certainty don't hold for it."""
    return grading.familiar is False  # None: the model can't tell


def _distance(grading: Grading) -> str:
    if grading.unfamiliarity is None:
        return ""
    rounded = math.ceil(grading.unfamiliarity * 10) / 10  # up, so that 1.04 does not read as 1.0
    return f" (distance {rounded:.1f}; over 1 is unlike)"


def _warnings(page: "_Page", grading: Grading, y: float) -> float:
    """Warnings and notes, above the result that they qualify; empty for an ordinary knee."""
    if _out_of_distribution(grading):
        page.rectangle(LEFT, y, RIGHT - LEFT, 17, line=2.2)
        page.rectangle(LEFT, y, 11, 17, fill=INK)
        page.text(LEFT + 5.5, y + 12, "!", 26, weight="bold", colour="white", align="centre")
        page.text(LEFT + 15, y + 5.8, "Not certain: this image is unlike the training knees", 12, weight="bold")
        page.paragraph(
            LEFT + 15,
            y + 7.4,
            RIGHT - LEFT - 18,
            f"It differs from everything the model was trained on{_distance(grading)}. It may not be a knee, may be "
            "another view, or may be poorly exposed or cropped. The grade below may mean nothing.",
            9,
        )
        y += 20
    for caution in map(_showable, grading.cautions):
        bottom = page.paragraph(LEFT + 4, y, RIGHT - LEFT - 4, caution, 10, lines=3, weight="bold")
        page.rectangle(LEFT, y + 0.6, 2.4, bottom - y - 0.6, fill=INK)
        y = bottom + 2
    notes = []
    if grading.inverted:
        notes.append("The X-ray is a photographic negative (dark bone). It was inverted before it was graded.")
    if grading.turned:
        notes.append("The X-ray is upside down. It was turned by 180 degrees before it was graded.")
    notes += map(_showable, grading.notes)
    if grading.model_note:
        notes.append(f"About this model: {_showable(grading.model_note)}")
    for note in notes:
        bottom = page.paragraph(LEFT + 4, y, RIGHT - LEFT - 4, note, 9, lines=3)
        page.rectangle(LEFT, y + 0.6, 1.4, bottom - y - 0.6, fill=INK)
        y = bottom + 2
    return y + 1


def _result(page: "_Page", grading: Grading, y: float) -> float:
    colour = RULE if _out_of_distribution(grading) else INK
    page.line([(LEFT, y), (RIGHT, y)], 0.6, RULE)
    kl = f"KL {grading.grade}"
    page.text(LEFT - 0.8, y + 15.5, kl, 38, weight="bold", colour=colour)
    name_at = LEFT + _width(kl, 38, "bold") + 3.5
    page.text(name_at, y + 15.5, grading.name, 21, colour=colour)

    if _out_of_distribution(grading):
        at = page.paragraph(LEFT, y + 19, COLUMN, "This is the model's answer all the same; do not rely on it.", 10)
    else:
        at = y + 19
        if grading.grade_set is not None:
            at = page.paragraph(LEFT, at, COLUMN, grading.summary, 9.5, weight="bold") + 0.8
        at = page.paragraph(LEFT, at, COLUMN, f"{grading.certainty}.", 9.5)
    page.text(LEFT, at + 7, f"{kl} means", 9.5, weight="bold")
    at = page.paragraph(LEFT, at + 8.2, COLUMN, GRADES[grading.grade].definition, 9.5)

    figures = LEFT + COLUMN + 6
    bottom = _expected_grade(page, grading, figures, _probabilities(page, grading, figures, y + 6))
    return max(at, bottom) + 3


def _probabilities(page: "_Page", grading: Grading, x: float, y: float) -> float:
    """The bar chart: the grade in black, the others pale, the prediction set in a bracket."""
    page.text(x, y, "Probability of each grade", 9.5, weight="bold")
    if not _out_of_distribution(grading):
        page.text(RIGHT, y, "calibrated" if grading.calibrated else "not calibrated", 8, colour=SOFT, align="right")
    row, first, longest = 6.2, y + 3, 30
    zero = x + 31
    for grade, probability in zip(GRADES, grading.probabilities, strict=True):
        top = first + grade.value * row
        chosen = grade.value == grading.grade
        weight = "bold" if chosen else "normal"
        page.text(x, top + 3.9, f"KL {grade.value}\u2002{grade.name}", 9, weight=weight)
        page.rectangle(zero, top + 0.9, longest * probability, 4.2, fill=INK if chosen else PALE, line=0.6)
        page.text(zero + longest + 11, top + 3.9, percent(probability), 9, weight=weight, align="right")
    bottom = first + NUM_GRADES * row
    page.line([(zero, first), (zero, bottom)], 0.8)
    if grading.grade_set is not None and not _out_of_distribution(grading):
        low, high = (first + edge * row for edge in (grading.grade_set[0], grading.grade_set[1] + 1))
        bracket = zero + longest + 13.5
        page.line([(bracket - 1.2, low + 0.9), (bracket, low + 0.9), (bracket, high - 1), (bracket - 1.2, high - 1)], 1)
        page.text(bracket + 1.2, (low + high) / 2 + 1, percent(grading.coverage), 8)
    return bottom


def _expected_grade(page: "_Page", grading: Grading, x: float, y: float) -> float:
    """The mean of the probabilities, marked on an axis from 0 to 4."""
    page.text(x, y + 7, f"Expected grade {grading.expected_grade:.1f}", 9.5, weight="bold")
    page.text(RIGHT, y + 7, "mean of the probabilities", 8, colour=SOFT, align="right")
    axis, zero = y + 13.5, x + 3
    step = (RIGHT - 3 - zero) / (NUM_GRADES - 1)
    page.line([(zero, axis), (zero + step * (NUM_GRADES - 1), axis)], 1)
    for grade in range(NUM_GRADES):
        page.line([(zero + grade * step, axis), (zero + grade * step, axis + 1.6)], 0.8)
        page.text(zero + grade * step, axis + 5.2, str(grade), 9, align="centre")
    at = zero + grading.expected_grade * step
    page.polygon([(at, axis - 0.4), (at - 1.9, axis - 3.9), (at + 1.9, axis - 3.9)])
    return axis + 6


def _pictures(page: "_Page", report: Report, top: float, bottom: float) -> None:
    """One row: the film with the knee's box where there is one, the X-ray, and the X-ray with the heat map."""
    grading, xray, gap, narrowest = (
        report.knee.grading,
        report.knee.radiograph.pixels,
        5,
        44,
    )  # a caption needs some width, however thin the picture
    tallest = max(20, bottom - top - 11)  # below are captions of up to three lines
    height, width = xray.shape
    left, room = LEFT, RIGHT - LEFT
    film_width = film_height = 0.0
    film = report.film.pixels
    if grading.box is not None:
        # All three of one height where that leaves the knee most of the row.
        film_aspect = film.shape[1] / film.shape[0]
        row = min(tallest, (room - 2 * gap) / (2 * width / height + film_aspect))
        film_width = min(room * 0.36, film_aspect * row)
        film_height = film_width / film_aspect
        slot = max(film_width, narrowest)
        left, room = left + slot + gap, room - slot - gap
    shown_width = min((room - gap) / 2, tallest * width / height)
    shown_height = shown_width * height / width
    slot = max(shown_width, narrowest)
    top += min(5, (tallest - max(shown_height, film_height)) / 3)  # where there is room, some air

    if grading.box is not None:
        page.picture(film, LEFT, top, film_width, film_height)
        across, down = film_width / film.shape[1], film_height / film.shape[0]
        _outline(page, grading.box, across, down, top, film_width, film_height)
        caption = "The whole film; the knee in the box was graded"
        page.paragraph(LEFT, top + film_height + 1, left - gap - LEFT, caption, 8, lines=3)

    facts = [
        grading.view,
        "a negative" if grading.inverted else None,
        "upside down" if grading.turned else None,
    ]
    caption = ", ".join(filter(None, ["The X-ray as read", *facts, f"{width}\u00a0by\u00a0{height}\u00a0pixels"]))
    page.picture(xray, left, top, shown_width, shown_height)
    page.paragraph(left, top + shown_height + 1, slot, caption, 8, lines=3)

    left += slot + gap
    evidence = heatmap.for_grade(grading.heatmap, grading.grade)
    positive = 255 - xray if grading.inverted else xray  # as it lies in the file
    caption = f"No region supports KL {grading.grade}"
    if evidence.any():
        caption = f"Evidence for KL {grading.grade}: brighter is stronger; outlined above half of the maximum"
    page.picture(positive, left, top, shown_width, shown_height, evidence)
    page.paragraph(left, top + shown_height + 1, slot, caption, 8, lines=3)


def _outline(page: "_Page", box: Box, across: float, down: float, y: float, width: float, height: float) -> None:
    """A box of the film, in the film's picture, which lies at `y` and has `across` by `down` millimetres a pixel."""
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    points = [
        (LEFT + min(max(column * across, 0), width), y + min(max(row * down, 0), height)) for column, row in corners
    ]
    page.line(points, 2.4)  # white on black: seen on bone as on air
    page.line(points, 1.1, "white")


def _foot(page: "_Page", grading: Grading) -> float:
    """Notes on reading the page, and file and model, at the bottom of the page. Returns its upper edge."""
    room = RIGHT - LEFT - LABELS
    if _out_of_distribution(grading):
        meaning = "They say little about an image that is unlike the training knees."
    elif grading.calibrated:
        meaning = "Calibrated on held-out knees: of 100 knees given 60% for a grade, about 60 have it."
    else:
        meaning = "Not calibrated: they rank the grades, but tend to be overconfident."
    reading = [("Probabilities", meaning)]
    if grading.grade_set is not None and not _out_of_distribution(grading):
        claim = grading.coverage_in_words
        reading.append(("Range", f"{claim[0].upper()}{claim[1:]}."))
    if grading.familiar is None:
        reading.append(("Familiarity", "The model can't tell whether this image is like the training knees."))
    elif grading.familiar:
        reading.append(("Familiarity", f"The image is like the training knees{_distance(grading)}."))
    reading += [
        ("Heat map", f"Regions that the score for KL {grading.grade} comes from; not an outline of disease."),
        ("KL grades", "After Kellgren and Lawrence, Ann Rheum Dis 1957;16:494. Readers differ, most of all over KL 1."),
    ]
    origin = [
        ("File", _fitted(_showable(grading.file), room, SMALL, lines=2)),
        *([("SHA-256", grading.sha256)] if grading.sha256 else []),
        ("Model", _fitted(_showable(grading.model), room, SMALL, lines=2)),
        ("Version", f"{_showable(grading.revision)[:64]}; koa-hf {__version__}"),
    ]
    heights = [
        [len(_wrapped(value, room, SMALL)) * SMALL * POINT * LEADING for _, value in rows] for rows in (reading, origin)
    ]
    top = y = BOTTOM - sum(map(sum, heights)) - 8
    for rows, steps in zip((reading, origin), heights, strict=True):
        page.line([(LEFT, y), (RIGHT, y)], 0.6, RULE)
        y += 1.5
        for (label, value), step in zip(rows, steps, strict=True):
            page.paragraph(LEFT, y, LABELS, label, SMALL, colour=SOFT)
            page.paragraph(LEFT + LABELS, y, room, value, SMALL)
            y += step
        y += 2.5
    return top


class _Page:
    """A sheet of A4. Lengths are in millimetres from its top left corner, type sizes and line widths in points."""

    def __init__(self, dpi: float):
        self.dpi = dpi
        self.figure = Figure((WIDTH / 25.4, HEIGHT / 25.4), dpi, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.axes.set_axis_off()

    def text(self, x, y, string, size, *, weight="normal", colour=INK, align="left") -> None:
        """One line on the baseline `y`, never parsed as mathematics: a file name may contain dollar signs."""
        self.axes.text(
            x,
            y,
            string,
            font=FontProperties(family=SANS, weight=weight, size=size),
            color=colour,
            horizontalalignment="center" if align == "centre" else align,
            verticalalignment="baseline",
            parse_math=False,
            usetex=False,
        )

    def paragraph(self, x, y, width, string, size, *, lines=None, **style) -> float:
        """Text broken to `width`, at most `lines` lines, downwards from `y`; returns its lower edge."""
        broken = _wrapped(string, width, size, style.get("weight", "normal"))
        if lines and len(broken) > lines:
            broken = [*broken[: lines - 1], broken[lines - 1] + "…"]
        for line in broken:
            y += size * POINT * LEADING
            self.text(x, y - size * POINT * (LEADING - 1), line, size, **style)
        return y + size * POINT * 0.1

    def rectangle(self, x, y, width, height, fill="none", line=0.0) -> None:
        self.axes.add_patch(
            Rectangle((x, y), width, height, facecolor=fill, edgecolor=INK if line else "none", linewidth=line)
        )

    def polygon(self, points) -> None:
        self.axes.add_patch(Polygon(points, facecolor=INK, edgecolor="none"))

    def line(self, points, width, colour=INK) -> None:
        self.axes.plot(
            *zip(*points, strict=True), color=colour, linewidth=width, solid_joinstyle="miter", solid_capstyle="butt"
        )

    def picture(self, pixels: np.ndarray, x, y, width, height, evidence: np.ndarray | None = None) -> None:
        """An X-ray, uint8 (height, width), with the evidence for one grade (`heatmap.for_grade`) painted over it."""
        size = [max(2, round(length / 25.4 * self.dpi)) for length in (width, height)]
        shown = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
        shown = np.repeat(shown[..., None], 3, axis=2) if evidence is None else heatmap.overlay(shown, evidence)
        extent = (x, x + width, y + height, y)
        self.axes.imshow(shown, extent=extent, aspect="auto", interpolation="none", origin="upper")
        self.rectangle(x, y, width, height, line=0.4)  # air is white in a negative, as the paper is
        if evidence is None:
            return
        enlarged = heatmap.upsample(evidence, size[1], size[0])
        if enlarged.min() < 0.5 < enlarged.max():
            across, down = np.linspace(x, x + width, size[0]), np.linspace(y, y + height, size[1])
            for colour, thickness in ((INK, 2), ("white", 0.9)):
                self.axes.contour(across, down, enlarged, levels=[0.5], colors=colour, linewidths=thickness)


@functools.cache
def _font(weight: str) -> ImageFont.FreeTypeFont:
    """A font for measuring, so large that rounding to pixels doesn't matter."""
    return ImageFont.truetype(matplotlib.font_manager.findfont(FontProperties(family=SANS, weight=weight)), 100)


def _width(string: str, size: float, weight: str = "normal") -> float:
    return _font(weight).getlength(string) * size * POINT / 100 * SCREEN


def _wrapped(string: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Break text into lines no wider than `width`, and words that are wider by themselves."""
    lines = [""]
    for word in string.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if _width(joined, size, weight) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and _width(lines[-1] + character, size, weight) > width:
                lines.append("")
            lines[-1] += character
    return lines


def _fitted(string: str, width: float, size: float, lines: int) -> str:
    """The string with its middle elided to fit the lines: the beginning and end of a name matter most."""
    kept = min(len(string), 300)
    short = string
    while len(short) > 1 and (len(short) > 300 or len(_wrapped(short, width, size)) > lines):
        kept -= 4
        short = f"{string[: kept // 2]}…{string[len(string) - kept // 2 :]}"
    return short


@functools.cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(matplotlib.font_manager.findfont(SANS)).get_charmap())


def _showable(name: str) -> str:
    """A name from outside as far as the font goes: a box for a missing glyph, nothing for invisible characters."""
    shown = []
    for character in unicodedata.normalize("NFC", name):
        kind = unicodedata.category(character)
        if kind.startswith("Z") or character in "\t\n\r":
            shown.append(" ")
        elif kind in ("Cc", "Cf", "Mn", "Me"):
            pass  # among them the marks that reverse the direction of text
        else:
            shown.append(character if ord(character) in _characters() else MISSING)
    return "".join(shown).strip() or MISSING
