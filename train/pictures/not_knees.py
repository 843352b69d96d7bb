"""Out-of-distribution images by kind, to choose and to measure the detector of images that are no ordinary knees.

    for kind in KINDS:
        pictures = images(kind, validation_knees, per_kind=40)

Needs requirements-dev.txt: the real pictures come with scikit-image, scikit-learn, matplotlib, pydicom and
pydicom-data. Nothing is downloaded. Some kinds show few source images in many crops and exposures, and some are
drawn, so a catch rate holds for these pictures, not for what people will upload:

| kind | shows | sources |
|---|---|---|
| photograph | people, animals, things, landscapes | 12 photographs |
| texture | brick, grass, gravel | 3 photographs |
| white noise, smooth noise, salt-and-pepper noise | noise; smooth is 1/f, from clouds to near blank | drawn |
| blank | one grey, a gradient, an empty film | drawn |
| text page | a page as rendered, or as a scanner delivers it; photographed writing | drawn, and 2 photographs |
| CT slice | head, abdomen, spine | 4 slices, 2 of them in two windows |
| MR slice | head, abdomen, shoulder | 3 slices |
| ultrasound | heart, lymph node, pelvis | 3 examinations, 4 pictures |
| retina | fundus, whole and in parts | 1 photograph |
| microscopy | stained tissue, a cell | 2 micrographs |
| chest X-ray | posteroanterior chest | 1 radiograph |
| leg X-ray | tibia and ankle | 1 radiograph |
| drawn hand X-ray, drawn knee | drawings, the knees from `koa_hf.imaging.phantom` | drawn |
| upside-down knee | turned by 180 degrees | the knees given |
| knee on its side | turned by 90 degrees, either way | the knees given |
| part of a knee | a window of 25 to 40 % of width and height | the knees given |
| two knees | both legs on one film | the knees given |
| knee far off | a knee of 20 to 35 % of a black film's height | the knees given |
| knee on a screen | a viewer's screenshot, or a photograph of the monitor | the knees given |
"""

import functools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pydicom.data
import skimage.data
from matplotlib import cbook
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_sample_images

from koa_hf.errors import KoaError
from koa_hf.grades import NUM_GRADES
from koa_hf.imaging import phantom, radiograph

UPSIDE_DOWN = "upside-down knee"

LONGEST_SIDE = 1024
"""Pixels: larger pictures are reduced to it."""

Maker = Callable[[int, Sequence[np.ndarray], np.random.Generator], np.ndarray]
"""(number, knees, generator) -> picture. The number counts from 0, so that variants and sources take turns."""

_FILM = 320  # width and height of a drawn film, pixels
_RAYS = (  # thumb to little finger: angle (degrees), root, lengths of metacarpal and phalanges, relative width
    (-46, (-0.07, -0.06), (0.12, 0.09, 0.065), 1.1),
    (-13, (-0.055, -0.11), (0.185, 0.115, 0.07, 0.05), 1.0),
    (-2, (-0.018, -0.115), (0.18, 0.13, 0.085, 0.055), 1.05),
    (9, (0.02, -0.11), (0.16, 0.12, 0.08, 0.055), 0.95),
    (20, (0.055, -0.1), (0.145, 0.09, 0.06, 0.05), 0.85),
)
_VOCABULARY = (
    "the patient reports pain on walking and stairs for several months without trauma please review images and "
    "advise on further treatment clinical examination shows mild swelling range of motion is limited invoice total "
    "date of birth address department ward page signed doctor follow up in six weeks medication as before"
)


def images(kind: str, knees: Sequence[np.ndarray], per_kind: int, seed: int = 0) -> list[np.ndarray]:
    """Make pictures of one kind.

    Args:
        kind: one of `KINDS`.
        knees: ordinary knee X-rays, uint8 (height, width), which some kinds transform; used in random order, each
            once before any is repeated.
        per_kind: how many.
        seed: the same arguments give the same pixels, and fewer give the first of more.

    Returns:
        `per_kind` arrays, uint8 (height, width), of various sizes.

    Raises:
        ValueError: no such kind, or no knees.
        KoaError: pydicom-data is not installed.
    """
    if kind not in _MAKERS:
        raise ValueError(f"kind is {kind!r}; it must be one of: {', '.join(KINDS)}")
    if not len(knees):
        raise ValueError("knees is empty; some kinds need ordinary knees to transform")
    stream = (seed, zlib.crc32(kind.encode()))
    shuffled = [knees[i] for i in np.random.default_rng(stream).permutation(len(knees))]
    make = _MAKERS[kind]
    return [np.array(make(number, shuffled, np.random.default_rng((*stream, number)))) for number in range(per_kind)]


# Real pictures


def _crops(sources: Callable[[], Sequence[np.ndarray]], smallest: float) -> Maker:
    """Maker of random windows of at least `smallest` of the sources' sides, randomly mirrored, with random gamma."""

    def make(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        pixels = _in_turn(sources(), number)
        pixels = _random_window(pixels, rng.uniform(smallest, 1), rng)
        pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
        return _to_uint8(255 * (pixels / 255) ** rng.uniform(0.75, 1.35))

    return make


def _in_turn(items: Sequence, number: int):
    return items[number % len(items)]


def _random_window(pixels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A window with `share` of the height and of the width, anywhere."""
    height, width = (max(1, round(share * side)) for side in pixels.shape)
    top, left = (rng.integers(full - part + 1) for full, part in zip(pixels.shape, (height, width), strict=True))
    return pixels[top : top + height, left : left + width]


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Any array as the grader would read it, uint8 (height, width), no larger than `LONGEST_SIDE`."""
    image = radiograph.read(pixels).image
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _dicom(name: str, low: float | None = None, high: float | None = None, frame: int | None = None) -> np.ndarray:
    """A file that comes with pydicom or pydicom-data; the stored values `low` to `high` become black to white."""
    dataset = pydicom.data.get_testdata_file(name, read=True, download=False)
    if dataset is None:
        raise KoaError(f"{name} is missing; it comes with pydicom-data: pip install -r requirements-dev.txt")
    values = dataset.pixel_array if frame is None else dataset.pixel_array[frame]
    if values.dtype == np.uint8:
        return _grey(values)
    values = values.astype(np.float32)
    values = np.clip(values, *np.percentile(values[::2, ::2], (1, 99)) if low is None else (low, high))
    return _grey(-values if dataset.PhotometricInterpretation == "MONOCHROME1" else values)


@functools.cache
def _photographs() -> list[np.ndarray]:
    shipped = [
        *load_sample_images().images,
        np.asarray(Image.open(cbook.get_sample_data("grace_hopper.jpg"))),
        *(getattr(skimage.data, name)() for name in ("astronaut", "camera", "cat", "coffee", "coins", "rocket")),
        *(getattr(skimage.data, name)() for name in ("hubble_deep_field", "moon")),
        skimage.data.stereo_motorcycle()[0],
    ]
    return [_grey(pixels) for pixels in shipped]


@functools.cache
def _textures() -> list[np.ndarray]:
    return [_grey(getattr(skimage.data, name)()) for name in ("brick", "grass", "gravel")]


@functools.cache
def _writing() -> list[np.ndarray]:
    return [_grey(skimage.data.page()), _grey(skimage.data.text())]


@functools.cache
def _ct_slices() -> list[np.ndarray]:
    return [
        _dicom("explicit_VR-UN.dcm", -160, 240),
        _dicom("J2K_pixelrep_mismatch.dcm", -500, 1300),
        _dicom("CT_small.dcm"),
        _dicom("693_UNCR.dcm", -1000, 2000),
        _dicom("explicit_VR-UN.dcm", -1000, 1000),
        _dicom("J2K_pixelrep_mismatch.dcm", -60, 140),
    ]


@functools.cache
def _mr_slices() -> list[np.ndarray]:
    with cbook.get_sample_data("s1045.ima.gz") as opened:
        head = np.frombuffer(opened.read(), "<u2").reshape(256, 256)
    return [_grey(head), _dicom("MR-SIEMENS-DICOM-WithOverlays.dcm"), _dicom("MR2_UNCR.dcm")]


@functools.cache
def _ultrasound() -> list[np.ndarray]:
    heart = [_dicom("examples_ybr_color.dcm", frame=frame) for frame in (0, 15)]
    pelvis = _dicom("gdcm-US-ALOKA-16.dcm")
    return [heart[0], _dicom("US1_UNCR.dcm"), heart[1], pelvis]


@functools.cache
def _retina() -> list[np.ndarray]:
    return [_grey(skimage.data.retina())]


@functools.cache
def _micrographs() -> list[np.ndarray]:
    return [_grey(skimage.data.immunohistochemistry()), _grey(skimage.data.cell())]


@functools.cache
def _chest() -> list[np.ndarray]:
    return [_dicom("RG1_UNCR.dcm")]


@functools.cache
def _leg() -> list[np.ndarray]:
    """Ankle, shaft, and the whole film with its collimated, white sides."""
    film = _dicom("RG3_UNCR.dcm")
    return [film[484:, 220:760], film[:540, 220:760], film]


# Noise, nothing, and text


def _white_noise(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    if number % 2:
        return rng.integers(256, size=(224, 224), dtype=np.uint8)
    return _to_uint8(rng.uniform(90, 160) + rng.uniform(20, 60) * rng.standard_normal((224, 224)))


def _smooth_noise(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return _stretch(_power_noise(224, rng.uniform(0.8, 2.5), rng), 0, 255)


def _salt_and_pepper(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Black and white pixels, or blocks of them, on one grey."""
    block = _in_turn((1, 2, 4), number)
    pixels = np.full((224 // block,) * 2, rng.integers(40, 216), np.uint8)
    where = rng.random(pixels.shape)
    share = rng.uniform(0.05, 0.5)
    pixels[where < share] = 255
    pixels[where < share / 2] = 0
    return pixels.repeat(block, axis=0).repeat(block, axis=1)


def _blank(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    level = rng.uniform(0, 255)
    rows, columns = np.mgrid[-1:1:224j, -1:1:224j]
    if (sort := number % 4) == 0:
        return np.full((224, 224), round(level), np.uint8)
    if sort == 1:  # a gradient in any direction
        angle = rng.uniform(0, 2 * np.pi)
        return _stretch(np.cos(angle) * columns + np.sin(angle) * rows, *np.sort(rng.uniform(0, 255, 2)))
    if sort == 2:  # sensor noise
        return _to_uint8(level + rng.uniform(1, 6) * rng.standard_normal((224, 224)))
    # An exposed film without a patient: the beam's fall-off, sensor noise, collimated edges.
    film = (
        level - 60 * rng.uniform(0.3, 1) * (rows**2 + columns**2) + rng.uniform(1, 4) * rng.standard_normal((224, 224))
    )
    edge = rng.uniform(0.75, 1, 2)
    return _to_uint8(np.where((abs(rows) < edge[0]) & (abs(columns) < edge[1]), film, 5))


def _text_page(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    if number % 5 == 4:
        return _crops(_writing, 0.5)(number // 5, knees, rng)
    page = Image.new("L", (420, _in_turn((420, 560), number // 2)), 255)
    draw = ImageDraw.Draw(page)
    face = rng.choice(["DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "STIXGeneral.ttf"])
    size = int(rng.integers(9, 22))
    font, heading = _matplotlib_font(face, size), _matplotlib_font(face, round(1.6 * size))
    margin, y = int(rng.integers(15, 60)), int(rng.integers(15, 60))
    draw.text((margin, y), _random_words(2, rng).title(), 0, heading)
    y += 3 * size
    while y < page.height - margin - size:
        line = _random_words(int((page.width - 2 * margin) / (3.6 * size)), rng)
        if rng.random() < 0.15:  # a paragraph ends
            line, y = line[: len(line) // 2], y + size // 2
        draw.text((margin, y), line, 0, font)
        y += round(1.4 * size)
    if number % 2:
        return np.asarray(page)
    # As a scanner delivers it: skewed, soft, on paper that is neither white nor even.
    page = page.rotate(rng.normal(0, 2), Image.Resampling.BICUBIC, fillcolor=255).filter(ImageFilter.GaussianBlur(0.6))
    ink = 1 - np.asarray(page) / 255
    paper = rng.uniform(190, 245) + 12 * _power_noise(560, 1.5, rng)[: page.height, : page.width]
    return _to_uint8(paper - 190 * ink + 4 * rng.standard_normal(ink.shape))


# Drawings


def _hand(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A posteroanterior hand: attenuation is added up, then exposed."""
    wrist, size, spread = np.array([0.5, 0.78]) + rng.normal(0, 0.02, 2), rng.uniform(1.1, 1.35), rng.uniform(0.7, 1.2)
    turn, mirror = np.deg2rad(rng.normal(0, 8)), rng.choice([-1, 1])
    onto_film = size * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * (mirror, 1)

    def mask(outlines: Sequence[np.ndarray], blur: float) -> np.ndarray:
        """Outlines in hand coordinates (origin at the wrist, fingers towards -y): float (320, 320), 0 to 1."""
        image = Image.new("L", (2 * _FILM, 2 * _FILM))
        for outline in outlines:
            points = 2 * _FILM * (wrist + outline @ onto_film)
            ImageDraw.Draw(image).polygon([tuple(point) for point in points], fill=255)
        return _blurred(np.asarray(image.reduce(2)) / 255, blur)

    radius_and_ulna = [((-0.032, 0.0), (-0.03, 0.5), 0.075), ((0.045, 0.005), (0.035, 0.5), 0.042)]
    long_bones = [_rod(*bone, waist=0.6) for bone in radius_and_ulna]
    flesh = [_rod((0, -0.12), (0.0, 0.5), 0.19, waist=0.75)]
    knuckles = []
    for degrees, root, lengths, width in _RAYS:
        angle = np.deg2rad(spread * degrees + rng.normal(0, 1.5))
        along, start = np.array([np.sin(angle), -np.cos(angle)]), np.array(root)
        flesh.append(_rod(start, start + (sum(lengths) + 0.025) * along, 0.068 * width, waist=1))
        for joint, length in enumerate(np.array(lengths) * rng.uniform(0.95, 1.05)):
            end = start + length * along
            long_bones.append(_rod(start + 0.003 * along, end - 0.003 * along, 0.036 * 0.86**joint * width, waist=0.6))
            knuckles += [end] if joint == 0 else []
            start = end
    flesh.append(np.array([(-0.085, 0.0), *knuckles, (0.085, 0.0)]))
    carpals = [
        _rod((x + rng.normal(0, 0.003), y - 0.018), (x + 0.004, y + 0.018), 0.044, waist=1)
        for y in (-0.075, -0.035)
        for x in (-0.057, -0.019, 0.019, 0.057)
    ]

    attenuation = 0.3 * mask(flesh, blur=0.008)
    for bones in (long_bones, carpals[::2], carpals[1::2]):  # neighbours overlap, so they are added up
        area = mask(bones, blur=0.002)
        attenuation += 0.2 * area + 0.3 * np.clip(2 * area * (1 - _blurred(area, 0.01)), 0, 1)
    level = rng.uniform(0.02, 0.1) + rng.uniform(0.9, 1.25) * attenuation * (1 + 0.04 * _power_noise(_FILM, 0.8, rng))
    grain = rng.uniform(1.5, 4) * rng.standard_normal(level.shape)
    return _to_uint8(255 * np.clip(level, 0, 1) ** rng.uniform(0.8, 1.2) + grain)


def _rod(start: Sequence[float], end: Sequence[float], width: float, waist: float) -> np.ndarray:
    """The outline of a rounded rod whose middle has `waist` of its width: (points, 2)."""
    start, along = np.asarray(start), np.subtract(end, start)
    aside = np.array([-along[1], along[0]]) / np.hypot(*along) * width / 2
    middle = -np.cos(np.linspace(0, np.pi, 25))  # -1 to 1, dense at the ends
    half = (waist + (1 - waist) * middle**4) * (1 - abs(middle) ** (2 * np.hypot(*along) / width + 1)) ** 0.5
    spine = start + (middle[:, None] + 1) / 2 * along
    return np.vstack([spine + half[:, None] * aside, (spine - half[:, None] * aside)[::-1]])


def _phantom_knee(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return phantom.draw_knee(number % NUM_GRADES, int(rng.integers(2**31)), str(rng.choice(["right", "left"])))


# Knees, but not as the training shows them


def _upside_down(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return _in_turn(knees, number)[::-1, ::-1]


def _on_its_side(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return np.rot90(_in_turn(knees, number), 1 if number % 2 else -1)


def _part(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    knee = _in_turn(knees, number)
    part = Image.fromarray(np.ascontiguousarray(_random_window(knee, rng.uniform(0.25, 0.4), rng)))
    return np.asarray(part.resize(knee.shape[::-1], Image.Resampling.BICUBIC))


def _two_knees(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    above, below = rng.integers(0, 120, 2)
    gap = np.zeros((224, rng.integers(0, 60)))
    right, left = (_faded_knee(_in_turn(knees, number + other)) for other in (0, 1))
    left *= right.mean() / max(left.mean(), 1)  # one exposure
    return _to_uint8(_lengthen(np.hstack([right, gap, left]), above, below, rng))


def _far_off(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    size = round(rng.uniform(0.2, 0.35) * 400)
    limb = Image.fromarray(_to_uint8(_faded_knee(_in_turn(knees, number)))).resize(
        (size, size), Image.Resampling.LANCZOS
    )
    film = rng.uniform(0, 25) + rng.uniform(0.5, 3) * rng.standard_normal((400, 400))
    top, left = rng.integers(20, 380 - size, 2)
    shaft = rng.integers(0, min(top, 400 - size - top), endpoint=True) if number % 2 else 0
    limb = _lengthen(np.asarray(limb, float), shaft, shaft, rng)
    film[top - shaft : top + size + shaft, left : left + size] += limb
    return _to_uint8(film)


def _faded_knee(knee: np.ndarray) -> np.ndarray:
    """A knee of 224 x 224 that fades to black at its sides, as the crop's own edges do not: float (224, 224)."""
    pixels = np.asarray(Image.fromarray(knee).resize((224, 224)), float)
    across = np.linspace(0, 1, 224)
    return pixels * np.clip(np.minimum(across, 1 - across) / 0.12, 0, 1) ** 0.5


def _lengthen(film: np.ndarray, above: int, below: int, rng: np.random.Generator) -> np.ndarray:
    """Go on with the first and last rows, a little darker and with grain, as shafts of the bones."""
    padded = np.pad(film, ((above, below), (0, 0)), mode="edge")
    row = np.arange(len(padded))
    beyond = np.maximum(np.maximum(above - row, row - above - len(film) + 1), 0)[:, None]
    grain = 1 + 0.02 * rng.standard_normal(padded.shape) * (beyond > 0)
    return padded * (1 - 0.25 * np.minimum(beyond / 100, 1)) * grain


def _on_a_screen(number: int, knees: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A viewer's window in colour; every other time photographed: askew, with moire, glare and a desk around it."""
    width, height = _in_turn(((480, 360), (480, 300), (400, 400)), number)
    dark = rng.random() < 0.6
    background, ink = ((28, 30, 36), (220, 220, 225)) if dark else ((240, 241, 244), (30, 30, 30))
    accents = [tuple(int(level) for level in rng.integers(40, 256, 3)) for _ in range(6)]
    screen = Image.new("RGB", (width, height), background)
    draw = ImageDraw.Draw(screen)
    font = _matplotlib_font("DejaVuSans.ttf", 10)
    side, bar = int(rng.integers(70, 150)), int(rng.integers(24, 44))
    draw.rectangle((0, 0, width, bar), accents[0])
    for button in range(int(rng.integers(4, 9))):
        draw.rounded_rectangle((8 + 32 * button, 6, 34 + 32 * button, bar - 5), 4, accents[1 + button % 5])
    for row, y in enumerate(range(bar + 10, height - 20, 18)):
        if rng.random() < 0.25:
            draw.rectangle((4, y - 3, side - 6, y + 13), accents[row % 6])
        draw.text((8, y), _random_words(2, rng)[: side // 7], ink, font)
    draw.rectangle((side, bar, width, height), "black")
    knee = Image.fromarray(_in_turn(knees, number))
    scale = min(width - side - 10, height - bar - 10)
    left = side + (width - side - scale) // 2
    screen.paste(knee.resize((scale, scale), Image.Resampling.BICUBIC), (left, bar + 5))
    draw.text((side + 6, bar + 6), f"W {rng.integers(200, 4000)} L {rng.integers(100, 2000)}", (255, 220, 80), font)
    draw.text((width - 60, height - 16), f"Im {rng.integers(1, 30)}", (120, 230, 255), font)
    if number % 2:
        return np.asarray(screen.convert("L"))

    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    seen = corners * rng.uniform(0.82, 0.92) + rng.uniform(0.02, 0.08, 2) * (width, height)
    seen += rng.uniform(-0.04, 0.04, (4, 2)) * (width, height)
    lens = _perspective(seen, corners)
    photo = screen.convert("L").transform(screen.size, Image.Transform.PERSPECTIVE, lens, Image.Resampling.BICUBIC)
    lit = Image.new("L", screen.size, 255).transform(screen.size, Image.Transform.PERSPECTIVE, lens)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    angle, waves = rng.uniform(0, np.pi), rng.uniform(20, 70)
    moire = 1 + rng.uniform(0.03, 0.1) * np.sin(2 * np.pi * waves * (np.cos(angle) * x + np.sin(angle) * y) + 3 * x * y)
    glare = 110 * rng.uniform(0.2, 1) * np.exp(-(((x - rng.random()) / 0.15) ** 2) - ((y - rng.random()) / 0.2) ** 2)
    desk = rng.uniform(50, 150) + 15 * _power_noise(480, 1.2, rng)[:height, :width]
    photo = np.where(np.asarray(lit) > 0, 15 + 0.85 * np.asarray(photo) * moire + glare, desk)
    return _to_uint8(photo + 3 * rng.standard_normal(photo.shape))


def _perspective(seen: np.ndarray, original: np.ndarray) -> list[float]:
    """The eight numbers by which Pillow maps the four corners as `seen` back to the `original`, each (4, 2)."""
    rows = []
    for (x, y), (u, v) in zip(seen, original, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.linalg.solve(np.array(rows), original.reshape(-1)).tolist()


# What the drawings share


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return _to_uint8(low + (values - values.min()) / np.ptp(values) * (high - low))


def _power_noise(size: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude falls as 1 / frequency ** exponent: mean 0, standard deviation 1, (size, size)."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) / frequency**exponent, (size, size))
    return noise / noise.std()


def _random_words(count: int, rng: np.random.Generator) -> str:
    return " ".join(rng.choice(_VOCABULARY.split(), count))


def _matplotlib_font(face: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", face), size)


def _blurred(mask: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray(_to_uint8(255 * mask))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius * len(mask)))) / 255


_MAKERS: dict[str, Maker] = {
    "photograph": _crops(_photographs, 0.5),
    "texture": _crops(_textures, 0.4),
    "white noise": _white_noise,
    "smooth noise": _smooth_noise,
    "salt-and-pepper noise": _salt_and_pepper,
    "blank": _blank,
    "text page": _text_page,
    "CT slice": _crops(_ct_slices, 0.6),
    "MR slice": _crops(_mr_slices, 0.6),
    "ultrasound": _crops(_ultrasound, 0.6),
    "retina": _crops(_retina, 0.4),
    "microscopy": _crops(_micrographs, 0.5),
    "chest X-ray": _crops(_chest, 0.7),
    "leg X-ray": _crops(_leg, 0.6),
    "drawn hand X-ray": _hand,
    "drawn knee": _phantom_knee,
    UPSIDE_DOWN: _upside_down,
    "knee on its side": _on_its_side,
    "part of a knee": _part,
    "two knees": _two_knees,
    "knee far off": _far_off,
    "knee on a screen": _on_a_screen,
}

KINDS = tuple(_MAKERS)
