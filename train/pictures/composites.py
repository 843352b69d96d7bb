"""Plausible films composed of the release's crops, with known boxes, to train and to measure the localiser.

    knees = [Crop(pixels, "right"), Crop(pixels, "left")]
    film = compose("bilateral", knees, np.random.default_rng(0), size=224)

The release has crops only, and no films with boxes, so the limb is continued beyond the crop. Upwards and downwards,
the edge rows are split into soft tissue and bone, and the bone narrows to a shaft with cortices; sideways, the soft
tissue thins out towards air. The crop fades into this by its own reflection, without a seam. With `varied`, a random
part of the crop's margin is redrawn too, so that the continuation doesn't reveal where the crop ended. Composites lack
what the release never shows: other projections, casts, stems of implants, the real rest of a long film.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from koa_hf.imaging import polarity

FilmBox = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; may reach beyond the film."""

KINDS = ("single", "bilateral", "strip", "strip of both", "full leg", "collimated")
"""One knee with shafts; both; a band around the joint line of one or of both; both legs from hip to ankle; one or
both within a wide border of one grey level."""

BOTH = ("bilateral", "strip of both", "full leg")
"""The kinds that show two knees."""

STRIPS = ("strip", "strip of both")

JOINT_LINE = 0.58
"""Height of the joint line in the release's crops, as a share of the crop."""

_BESIDE = 0.75  # how far soft tissue is drawn beside a crop, in its widths
_NEGATIVES = 0.15  # of the varied films


@dataclass(frozen=True)
class Crop:
    """A knee as in the release: uint8 (224, 224), and its side, `right` or `left`."""

    pixels: np.ndarray
    side: str


@dataclass(frozen=True)
class Composite:
    """A composed film and its annotations.

    Attributes:
        pixels: uint8 (height, width).
        boxes: of each crop, from the film's left to its right.
        sides: the patient's `right` or `left`, for each box.
        kind: one of `KINDS`.
        negative: bone is dark.
    """

    pixels: np.ndarray
    boxes: tuple[FilmBox, ...]
    sides: tuple[str, ...]
    kind: str
    negative: bool


def compose(
    kind: str, crops: Sequence[Crop], rng: np.random.Generator, size: int, varied: bool = True, negative: bool = False
) -> Composite:
    """Compose a film.

    Args:
        kind: one of `KINDS`.
        crops: two knees for a kind in `BOTH`, the first on the film's left; else one. `collimated` takes either.
        rng: the same state gives the same pixels.
        size: width of the crops on the film, pixels.
        varied: also redraw the crops' margins, tilt them, change exposure and noise, and make some films negatives.
            Otherwise the crops' own pixels are on the film, resampled to `size` and not touched but for markers beside
            them: a grade can be compared.
        negative: always make it a negative.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of: {', '.join(KINDS)}")
    both = len(crops) == 2
    if kind != "collimated" and both != (kind in BOTH):
        raise ValueError(f"a film of kind {kind!r} shows {2 if kind in BOTH else 1} knee(s), not {len(crops)}")
    width, height, centres = _layout(kind, both, varied, rng)
    width, height = round(width * size), round(height * size)
    bright = [255 - c.pixels if polarity.is_negative(c.pixels) else c.pixels for c in crops]
    air = min(rng.uniform(0, 40), *(float(np.percentile(pixels, 1)) for pixels in bright))
    film = np.full((height, width), air, np.float32)
    boxes = []
    for pixels, (x, y) in zip(bright, centres, strict=True):
        left, top = round((x - 0.5) * size), round((y - 0.5) * size)
        above, below = max(top, 0) + size // 3, max(height - top - size, 0) + size // 3
        limb = _limb(_resized(pixels, size), above, below, air, kind == "full leg", varied, rng)
        on_film, limb = _overlapping(film, limb, left - (limb.shape[1] - size) // 2, top - above)
        # Where limbs overlap their attenuations add up.
        on_film += limb - air
        boxes.append((left, top, left + size, top + size))
    if not varied:
        for pixels, (left, top, _, _) in zip(bright, boxes, strict=True):
            on_film, knee = _overlapping(film, _resized(pixels, size), left, top)
            on_film[:] = knee
    film = _exposed(film, air, rng) if varied else film
    _mark(film, boxes, rng)
    if kind == "collimated":
        film, boxes = _collimated(film, boxes, size, rng)
    negative = negative or bool(varied and rng.random() < _NEGATIVES)
    pixels = np.clip(np.round(film), 0, 255).astype(np.uint8)
    sides = tuple(crop.side for crop in crops)
    return Composite(255 - pixels if negative else pixels, tuple(boxes), sides, kind, negative)


def mirrored(crop: Crop) -> Crop:
    """Mirror image of a crop, as of the other leg."""
    return Crop(np.ascontiguousarray(crop.pixels[:, ::-1]), "left" if crop.side == "right" else "right")


def _layout(
    kind: str, both: bool, varied: bool, rng: np.random.Generator
) -> tuple[float, float, list[tuple[float, float]]]:
    """Width and height of a film, and the centres of the crops on it, all in widths of a crop.

    Where not `varied`, the crops lie on the film as a whole, but for strips.
    """
    apart = rng.uniform(1.15, 1.8)
    middle = [(-apart / 2, rng.normal(0, 0.05)), (apart / 2, rng.normal(0, 0.05))] if both else [(0.0, 0.0)]
    extent = 1 + apart if both else 1.0
    if kind in ("single", "collimated", "bilateral"):
        width, height = extent + rng.uniform(0.2, 1.4), rng.uniform(1.3, 3.2)
        x, y = width / 2 + rng.normal(0, 0.1), height / 2 + rng.normal(0, 0.15)
    elif kind == "full leg":
        width, height = extent + rng.uniform(0.1, 0.8), rng.uniform(6.5, 10.5)
        x, y = width / 2 + rng.normal(0, 0.05), height * rng.uniform(0.45, 0.6)
    else:
        height = rng.uniform(0.6, 0.85)
        width = extent + rng.uniform(0.0, 0.6)
        x, y = width / 2 + rng.normal(0, 0.06), height / 2 + 0.5 - JOINT_LINE + rng.normal(0, 0.04)
    if not varied:
        x = np.clip(x, extent / 2, width - extent / 2)
        y = y if kind in STRIPS else np.clip(y, 0.65, height - 0.65)
    return width, height, [(x + dx, y + dy) for dx, dy in middle]


def _resized(pixels: np.ndarray, size: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS), np.float32)


def _limb(
    knee: np.ndarray,
    above: int,
    below: int,
    air: float,
    to_the_ends: bool,
    varied: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """A crop with the limb continued: float32 (above + size + below, size and soft tissue beside it)."""
    size = len(knee)
    cut = rng.uniform(0, 0.12, 4) * size * (rng.random(4) < 0.7) if varied else np.zeros(4)
    left, top, right, bottom = cut.astype(int)
    knee = knee[top : size - bottom, left : size - right]
    grain = float(np.std(knee - ndimage.uniform_filter(knee, 3)))
    beside = round(_BESIDE * size)
    knee = _widened(knee, beside + left, size, air, rng)
    knee = _widened(knee[:, ::-1], beside + right, size, air, rng)[:, ::-1]
    upper = _shaft(knee, above + top, size, air, to_the_ends, rng)
    lower = _shaft(knee[::-1], below + bottom, size, air, to_the_ends, rng)[::-1]
    limb = np.vstack([upper, knee, lower])
    drawn = np.ones(limb.shape, bool)
    drawn[above + top : above + size - bottom, beside + left : beside + size - right] = False
    limb += drawn * grain * rng.standard_normal(limb.shape, np.float32) * (limb > air + 2)
    if varied:
        limb = _tilted(limb, rng.normal(0, 4), (beside + size / 2, above + size / 2), air)
    return limb


def _widened(knee: np.ndarray, width: int, size: int, air: float, rng: np.random.Generator) -> np.ndarray:
    """Soft tissue added at the left: it thins out towards the skin as the chord through a cylinder does."""
    edge = ndimage.gaussian_filter1d(knee[:, : max(2, size // 40)].mean(1), size / 25)[:, None]
    skin = size * rng.uniform(0.06, 0.6) * (1 + 0.1 * _wave(len(knee), rng))[:, None]
    away = np.arange(width, 0, -1, dtype=np.float32)
    tissue = air + (edge - air).clip(0) * np.sqrt((1 - (away / skin) ** 2).clip(0))
    return np.hstack([_faded(knee[:, :width].T, tissue[:, ::-1].T, size).T[:, ::-1], knee])


def _shaft(
    knee: np.ndarray, length: int, size: int, air: float, to_the_end: bool, rng: np.random.Generator
) -> np.ndarray:
    """The limb beyond the first row: (length, width), the row next to the knee last."""
    if not length:
        return knee[:0]
    profile = ndimage.gaussian_filter1d(knee[: max(2, size // 30)].mean(0), size / 60)
    # Bone is narrower than the condyles and brighter than its surroundings; the rest is soft tissue.
    tissue = ndimage.gaussian_filter1d(ndimage.grey_opening(profile, round(0.85 * size)), size / 15)
    bone = (profile - tissue).clip(0)
    x = np.arange(len(profile), dtype=np.float32)
    middle = float((x * bone).sum() / max(float(bone.sum()), 1e-6)) if bone.max() > 1 else len(x) / 2
    away = np.arange(1, length + 1, dtype=np.float32)[:, None] / size
    step = np.clip(away / rng.uniform(0.4, 0.9), 0, 1)
    step = step * step * (3 - 2 * step)
    narrow = 1 - step * rng.uniform(0.4, 0.6)
    flare = 1 + rng.uniform(-0.1, 0.25) * np.minimum(away, 3)
    gap = np.zeros_like(away)
    if to_the_end:  # the far joint: the bone widens again, ends, and another begins
        end = rng.uniform(0.75, 0.95) * length / size
        narrow += 0.35 * np.exp(-(((away - end) / 0.35) ** 2))
        gap = np.exp(-(((away - end) / 0.04) ** 2))
    shift = rng.normal(0, 0.05) * away * size
    from_middle = x - middle - shift
    shaft = np.interp(middle + from_middle / narrow, x, bone, left=0, right=0) * (1 - gap)
    half = 0.4 * size * narrow
    cortex = np.exp(-(((np.abs(from_middle) - half) / (0.035 * size)) ** 2)) - 0.4 * (np.abs(from_middle) < 0.5 * half)
    shaft += step * (1 - gap) * rng.uniform(0.1, 0.35) * max(float(bone.max()), 20) * cortex
    envelope = np.interp(middle + from_middle / flare, x, tissue, left=air, right=air)
    envelope = air + (envelope - air) * (1 + 0.04 * _wave(length, rng))[:, None]
    limb = (envelope + shaft * (envelope > air + 2)).astype(np.float32)
    return _faded(knee[:length], limb, size)[::-1]


def _faded(inside: np.ndarray, outside: np.ndarray, size: int) -> np.ndarray:
    """Drawn rows outside (first row next to the edge), blended with the reflection of the rows inside."""
    depth = min(len(inside), len(outside), max(2, size // 20))
    share = np.linspace(1, 0, depth, dtype=np.float32)[:, None]
    mixed = np.array(outside, np.float32)
    mixed[:depth] = share * inside[:depth] + (1 - share) * mixed[:depth]
    return mixed


def _wave(length: int, rng: np.random.Generator) -> np.ndarray:
    """A slow curve over a length: float32 (length,), about -1 to 1."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, 7), rng.uniform(-1, 1, 7)).astype(np.float32)


def _tilted(limb: np.ndarray, degrees: float, centre: tuple[float, float], air: float) -> np.ndarray:
    image = Image.fromarray(limb)
    return np.asarray(image.rotate(degrees, Image.Resampling.BILINEAR, center=centre, fillcolor=air))


def _overlapping(film: np.ndarray, part: np.ndarray, left: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlap of a film and a part placed on it: views of equal shape into both."""
    height, width = film.shape
    rows = slice(max(top, 0), max(min(top + part.shape[0], height), 0))
    columns = slice(max(left, 0), max(min(left + part.shape[1], width), 0))
    return film[rows, columns], part[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _exposed(film: np.ndarray, air: float, rng: np.random.Generator) -> np.ndarray:
    """Another film, tube and window: gamma, contrast, fog, a gradient, noise."""
    level = ((film - air) / max(float(film.max()) - air, 1)).clip(0, 1) ** rng.uniform(0.6, 1.5)
    low = rng.uniform(0, 60) * (rng.random() < 0.5)
    height, width = film.shape
    tilt = rng.normal(0, 0.06) * np.linspace(-1, 1, width) + rng.normal(0, 0.06) * np.linspace(-1, 1, height)[:, None]
    level = level * (1 + tilt)
    noise = rng.uniform(0, 5) * rng.standard_normal(film.shape, np.float32)
    return low + (rng.uniform(140, 255) - low) * level + noise


def _mark(film: np.ndarray, boxes: Sequence[FilmBox], rng: np.random.Generator) -> None:
    """A side marker and a line of text beside the knees, on most films."""
    height, width = film.shape
    size = boxes[0][2] - boxes[0][0]
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    for text, share in ((str(rng.choice(["R", "L"])), 0.7), ("AP weight bearing 0" + str(rng.integers(10, 99)), 0.4)):
        if rng.random() > share:
            continue
        font = ImageFont.load_default(size=max(6, size * (0.14 if len(text) == 1 else 0.05)))
        at = (rng.uniform(0, 0.9) * width, rng.uniform(0, 0.95) * height)
        draw.text(at, text, 255, font)
    ink = np.array(image)
    for left, top, right, bottom in boxes:
        ink[max(int(top), 0) : max(int(bottom), 0), max(int(left), 0) : max(int(right), 0)] = 0
    film[ink > 0] = np.maximum(film[ink > 0], ink[ink > 0] * rng.uniform(0.6, 1))


def _collimated(
    film: np.ndarray, boxes: Sequence[FilmBox], size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[FilmBox]]:
    """A wide border of one grey level around the film, to a size that detectors have, on two to four of its sides."""
    level = float(rng.choice([0, 0, 255, rng.uniform(20, 120)]))
    widths = np.round(rng.uniform(0.15, 0.6, 4) * size * (rng.random(4) < 0.8)).astype(int)
    if not widths.any():
        widths[:] = round(0.3 * size)
    left, top, right, bottom = widths
    film = np.pad(film, ((top, bottom), (left, right)), constant_values=level)
    return film, [(x0 + left, y0 + top, x1 + left, y1 + top) for x0, y0, x1, y1 in boxes]
