"""Pixels as they should be displayed, whatever a file stores: the range of their values, their shape; blank images."""

import numpy as np
from PIL import Image

PERCENTILES = (1, 99)
BLANK = 4
"""Grey levels of 255 within which nearly all pixels of a blank image lie: one level, with JPEG's noise."""

_SQUARE = 1.01  # ratio of sides up to which pixels count as square
_LARGEST_RATIO = 4.0  # of sides; more is a mistake in the file
_SAMPLE = 1000  # rows and columns looked at, for speed


def display_range(values: np.ndarray) -> tuple[float, float]:
    """The values to be displayed as black and as white: the 1st and the 99th percentile.

    That leaves out dead pixels and most burnt-in letters. Letters that cover more stand far above everything else, or
    far below, with one value: a lowest or highest value that is further from the others than these from each other is
    left out, too.

    Args:
        values: finite, of any shape; one or more.

    Returns:
        Both are equal only if all values are.
    """
    values = np.asarray(values, np.float64)
    for sign in (1, -1):
        end = (sign * values).max()
        others = values[sign * values < end]
        if others.size and end - (sign * others).max() > np.ptp(others) > 0:
            values = others
    low, high = np.percentile(values, PERCENTILES)
    return (float(low), float(high)) if low < high else (float(values.min()), float(values.max()))


def sample(pixels: np.ndarray) -> np.ndarray:
    """Rows and columns of a large image (height, width) at regular distances: enough for statistics, and faster."""
    height, width = pixels.shape
    return pixels[:: max(1, height // _SAMPLE), :: max(1, width // _SAMPLE)]


def is_blank(pixels: np.ndarray) -> bool:
    """True if an image, uint8 (height, width), shows nothing but one grey level."""
    low, high = np.percentile(sample(pixels), (0.5, 99.5))
    return bool(high - low <= BLANK)


def with_square_pixels(
    pixels: np.ndarray, across: float, down: float, max_pixels: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """An image, uint8 (height, width), enlarged along the coarser direction until its pixels are square, and a note.

    Args:
        across, down: pixels per millimetre, or per anything, along the rows and along the columns.
        max_pixels: an image that would become larger is made smaller instead, along the finer direction.
    """
    ratio = across / down if across > 0 and down > 0 else 1.0
    if not _SQUARE < max(ratio, 1 / ratio) <= _LARGEST_RATIO:
        return pixels, ()
    height, width = pixels.shape
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    if size[0] * size[1] > max_pixels:
        size = (round(width / ratio), height) if ratio > 1 else (width, round(height * ratio))
    resampled = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resampled), ("The pixels of the file are not square; the image was resampled.",)
