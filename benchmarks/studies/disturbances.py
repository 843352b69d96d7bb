"""Disturbances of knee crops: what files, machines and people do to a radiograph before it is graded.

    for disturbance in DISTURBANCES:
        disturbed = disturbance(pixels, "9000099L.png")     # uint8 in, uint8 out; repeatable, seeded by the file's name

No code is shared with the training's augmentation, so a network cannot do well here by having learnt its quirks: files
are written by real encoders (libjpeg-turbo through Pillow and imagecodecs, libwebp), reduced by Pillow, blurred by
SciPy, sharpened and equalised by scikit-image (requirements-dev.txt). No recipe trains on WebP, Photoshop's
quantisation tables, JPEG twice, quantum noise, grain, CLAHE, markers or strips.
"""

import fnmatch
import functools
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np
from PIL import Image, ImageDraw, ImageFont, JpegPresets
from scipy import ndimage
from skimage import exposure, filters

from koa_hf.errors import KoaError
from koa_hf.imaging import radiograph

CLEAN = "clean"
STRIP_HEIGHTS = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Of the crop's height. 300x162 pixels, as in a public set of strips, are 0.54."""

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Disturbance:
    """One change of a knee crop.

    Attributes:
        name: for options, files and results.
        label: for tables and pictures.
        group: heading in tables and pictures.
        change: uint8 (height, width) and a random generator -> values of the disturbed crop, 0 to 255, of any size.
        search: the knee is searched in the disturbed image as on a film, as the demo does; else it is graded as it is.
    """

    name: str
    label: str
    group: str
    change: Change
    search: bool = False

    def __call__(self, pixels: np.ndarray, file_name: str) -> np.ndarray:
        """uint8 (height, width) -> uint8, perhaps of another size. One file's noise has one seed for all levels."""
        seed = int.from_bytes(hashlib.sha256(file_name.encode()).digest()[:8], "big")
        changed = self.change(pixels, np.random.default_rng(seed))
        return np.ascontiguousarray(np.clip(np.rint(changed), 0, 255).astype(np.uint8))


def _saved(image: Image.Image, **options) -> np.ndarray:
    """Encode as a colour file, as phones and browsers write them, and read it as the Grader does."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, **options)
    return radiograph.read(buffer.getvalue(), "saved image").pixels


def _jpeg(pixels: np.ndarray, rng, quality: int) -> np.ndarray:
    return _saved(Image.fromarray(pixels), format="JPEG", quality=quality, subsampling="4:2:0")


def _jpeg_photoshop(pixels: np.ndarray, rng, tables: str) -> np.ndarray:
    return _saved(Image.fromarray(pixels), format="JPEG", qtables=JpegPresets.presets[tables]["quantization"])


def _jpeg_twice(pixels: np.ndarray, rng, first: int, second: int) -> np.ndarray:
    return _jpeg(imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(pixels, level=first)), rng, second)


def _webp(pixels: np.ndarray, rng, quality: int) -> np.ndarray:
    return _saved(Image.fromarray(pixels), format="WEBP", quality=quality)


def _noise(pixels: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    return pixels + rng.normal(0, sigma, pixels.shape)


def _grain(pixels: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Noise that neighbours share, as of a film scanner or an enlarged image."""
    grain = ndimage.gaussian_filter(rng.normal(0, 1, pixels.shape), 1)
    return pixels + grain * (sigma / grain.std())


def _quantum_noise(pixels: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Poisson noise of photon counts, whose negative logarithm is shown: bone, where few arrive, is noisiest.

    Args:
        sigma: standard deviation at mid-grey, of 255.
    """
    decades = 1.5  # of exposure from air to the densest bone
    grey_levels = 255 / decades / np.log(10)  # for a factor e
    mid_grey = (grey_levels / sigma) ** 2  # counts there
    counts = rng.poisson(mid_grey * np.exp((127.5 - pixels.astype(np.float64)) / grey_levels))
    return 127.5 - grey_levels * np.log(np.maximum(counts, 0.5) / mid_grey)


def _blur(pixels: np.ndarray, rng, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(pixels.astype(np.float64), sigma)


def _reduced(pixels: np.ndarray, rng, factor: float, resample: Image.Resampling) -> np.ndarray:
    """Fewer pixels, left small."""
    height, width = pixels.shape
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(Image.fromarray(pixels).resize(size, resample))


def _unsharp(pixels: np.ndarray, rng, radius: float, amount: float) -> np.ndarray:
    return filters.unsharp_mask(pixels, radius, amount) * 255


def _clahe(pixels: np.ndarray, rng, clip_limit: float) -> np.ndarray:
    return exposure.equalize_adapthist(pixels, clip_limit=clip_limit) * 255


def _gamma(pixels: np.ndarray, rng, exponent: float) -> np.ndarray:
    return 255 * (pixels / 255) ** exponent


def _contrast(pixels: np.ndarray, rng, factor: float) -> np.ndarray:
    return pixels.mean() + factor * (pixels - pixels.mean())


def _window(pixels: np.ndarray, rng, clipped: float) -> np.ndarray:
    low, high = np.percentile(pixels, (clipped, 100 - clipped))
    return (pixels - low) * (255 / max(high - low, 1))


def _rotated(pixels: np.ndarray, rng: np.random.Generator, degrees: float) -> np.ndarray:
    """Either way; what comes in from beyond the edge repeats it."""
    angle = rng.choice((-degrees, degrees))
    return ndimage.rotate(pixels.astype(np.float64), angle, reshape=False, order=3, mode="nearest")


def _zoomed_in(pixels: np.ndarray, rng, share: float) -> np.ndarray:
    """The middle `share` of height and width, left at its size."""
    height, width = pixels.shape
    rows, columns = round(height * share), round(width * share)
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[top : top + rows, left : left + columns]


def _zoomed_out(pixels: np.ndarray, rng, share: float) -> np.ndarray:
    """More field of view around the crop; what lies beyond it repeats its edge."""
    height, width = pixels.shape
    rows, columns = round(height * (1 / share - 1) / 2), round(width * (1 / share - 1) / 2)
    return np.pad(pixels, ((rows, rows), (columns, columns)), mode="edge")


def _shifted(pixels: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Up, down, left or right; what comes in from beyond the edge repeats it."""
    axis, sign = rng.integers(2), rng.choice((-1, 1))
    shift = [0, 0]
    shift[axis] = int(sign * round(pixels.shape[axis] * share))
    return ndimage.shift(pixels, shift, order=0, mode="nearest")


def _marked(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A white R or L in one of the corners."""
    image = Image.fromarray(pixels)
    size = min(pixels.shape)
    across, down = (round(size * (0.08 if near else 0.92)) for near in rng.integers(2, size=2))
    place = (across * image.width / size, down * image.height / size)
    font = ImageFont.load_default(round(0.14 * size))
    ImageDraw.Draw(image).text(place, rng.choice(("R", "L")), fill=255, font=font, anchor="mm")
    return np.asarray(image)


def _strip(pixels: np.ndarray, rng, share: float, quality: int | None = None) -> np.ndarray:
    """The crop's whole width, and the middle `share` of its height, where the joint line is; as JPEG with `quality`."""
    rows = max(round(pixels.shape[0] * share), 1)
    top = (pixels.shape[0] - rows) // 2
    strip = pixels[top : top + rows]
    return _jpeg(np.ascontiguousarray(strip), rng, quality) if quality else strip


def _filled(pixels: np.ndarray, rng, share: float, quality: int | None = None) -> np.ndarray:
    """A strip, made as high again as the crop by repeating its upper and lower edge."""
    strip = _strip(pixels, rng, share, quality)
    above = (len(pixels) - len(strip)) // 2
    return np.pad(strip, ((above, len(pixels) - len(strip) - above), (0, 0)), mode="edge")


def _some(group: str, *rows: tuple) -> tuple[Disturbance, ...]:
    """Disturbances of one group, from (name, label, function, its options)."""
    return tuple(
        Disturbance(name, label, group, functools.partial(change, **options)) for name, label, change, options in rows
    )


LANCZOS, BOX = Image.Resampling.LANCZOS, Image.Resampling.BOX
DISTURBANCES: tuple[Disturbance, ...] = (
    Disturbance(CLEAN, "clean", "", lambda pixels, rng: pixels),
    *_some(
        "Files",
        ("jpeg-90", "JPEG 90", _jpeg, {"quality": 90}),
        ("jpeg-75", "JPEG 75", _jpeg, {"quality": 75}),
        ("jpeg-50", "JPEG 50", _jpeg, {"quality": 50}),
        ("jpeg-30", "JPEG 30", _jpeg, {"quality": 30}),
        ("jpeg-photoshop", "JPEG, Photoshop's tables for medium", _jpeg_photoshop, {"tables": "medium"}),
        ("jpeg-twice", "JPEG 60, then JPEG 85", _jpeg_twice, {"first": 60, "second": 85}),
        ("webp-80", "WebP 80", _webp, {"quality": 80}),
        ("webp-50", "WebP 50", _webp, {"quality": 50}),
    ),
    *_some(
        "Noise, sigma of 255",
        ("noise-4", "Gaussian 4", _noise, {"sigma": 4}),
        ("noise-8", "Gaussian 8", _noise, {"sigma": 8}),
        ("noise-16", "Gaussian 16", _noise, {"sigma": 16}),
        ("grain-8", "grain 8", _grain, {"sigma": 8}),
        ("quantum-8", "quantum noise, 8 at mid-grey", _quantum_noise, {"sigma": 8}),
    ),
    *_some(
        "Resolution",
        ("blur-1", "blur, sigma 1 px", _blur, {"sigma": 1}),
        ("blur-2", "blur, sigma 2 px", _blur, {"sigma": 2}),
        ("pixels-0.7", "0.7 of the pixels", _reduced, {"factor": 0.7, "resample": LANCZOS}),
        ("pixels-0.5", "0.5 of the pixels", _reduced, {"factor": 0.5, "resample": BOX}),
        ("pixels-0.4", "0.4 of the pixels", _reduced, {"factor": 0.4, "resample": LANCZOS}),
    ),
    *_some(
        "Consoles and viewers",
        ("unsharp", "unsharp mask", _unsharp, {"radius": 3, "amount": 1}),
        ("clahe", "CLAHE", _clahe, {"clip_limit": 0.01}),
        ("gamma-0.7", "gamma 0.7", _gamma, {"exponent": 0.7}),
        ("gamma-1.4", "gamma 1.4", _gamma, {"exponent": 1.4}),
        ("contrast-0.6", "contrast 0.6", _contrast, {"factor": 0.6}),
        ("contrast-1.4", "contrast 1.4", _contrast, {"factor": 1.4}),
        ("window", "window that clips 2 % at either end", _window, {"clipped": 2}),
        ("negative", "negative", lambda pixels, rng: 255 - pixels, {}),
        ("marker", "R or L in a corner", _marked, {}),
    ),
    *_some(
        "Geometry",
        ("rotation", "rotated by 8°", _rotated, {"degrees": 8}),
        ("zoom-in", "zoomed in by 10 %", _zoomed_in, {"share": 0.9}),
        ("zoom-out", "zoomed out by 10 %", _zoomed_out, {"share": 0.9}),
        ("shift", "shifted by 10 %", _shifted, {"share": 0.1}),
        ("mirror", "mirror image", lambda pixels, rng: pixels[:, ::-1], {}),
    ),
    *_some(
        "Strips of the joint line, graded as they are",
        *((f"strip-{h}", f"{h} of the height", _strip, {"share": h}) for h in STRIP_HEIGHTS),
    ),
    *(
        Disturbance(
            f"strip-{h}-searched",
            f"{h} of the height",
            "Strips, the knee searched as on a film",
            functools.partial(_strip, share=h),
            search=True,
        )
        for h in STRIP_HEIGHTS
    ),
    *_some(
        "Strips, other ways of showing them to the network",
        ("square-0.7", "0.7: the square from its middle", _zoomed_in, {"share": 0.7}),
        ("square-0.5", "0.5: the square from its middle", _zoomed_in, {"share": 0.5}),
        ("filled-0.7", "0.7: a square, edges repeated", _filled, {"share": 0.7}),
        ("filled-0.5", "0.5: a square, edges repeated", _filled, {"share": 0.5}),
        ("strip-0.5-jpeg", "0.5, JPEG 50: as it is", _strip, {"share": 0.5, "quality": 50}),
        ("filled-0.5-jpeg", "0.5, JPEG 50: a square, edges repeated", _filled, {"share": 0.5, "quality": 50}),
    ),
)
"""The clean crop first."""


def chosen(names: list[str] | None) -> list[Disturbance]:
    """The disturbances of these names or patterns (`jpeg-*`), with the clean crop first; None: all.

    Raises:
        KoaError: no such disturbance.
    """
    known = [one.name for one in DISTURBANCES]
    matches = {name: fnmatch.filter(known, name) for name in names or ()}
    if unknown := [name for name, found in matches.items() if not found]:
        raise KoaError(f"there is no disturbance {unknown[0]}; choose from {', '.join(known)}.")
    wanted = {CLEAN, *(name for found in matches.values() for name in found)}
    return [one for one in DISTURBANCES if names is None or one.name in wanted]
