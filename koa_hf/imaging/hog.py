"""Histograms of oriented gradients (Dalal and Triggs 2005, https://doi.org/10.1109/CVPR.2005.177), in numpy.

Orientations are unsigned, so a photographic negative has the features of its positive.
"""

import numpy as np
from scipy import ndimage

BINS = 9
"""Orientations, 20 degrees each."""

_LEAST = 0.02  # gradient in grey levels (0 to 1) per pixel; weaker ones are noise and stay small when normalised
_LARGEST = 0.5


def hog(grey: np.ndarray, cell: int) -> np.ndarray:
    """HOG features of images.

    Args:
        grey: float32 (images, height, width), values about 0 to 1; incomplete cells at the edge are ignored.
        cell: width and height of a cell, pixels.

    Returns:
        float32 (images, height // cell, width // cell, `BINS`), 0 to 0.5: gradient magnitude per cell and orientation,
        interpolated between the two nearest bins, normalised by the L2 norm of the surrounding 3 x 3 cells, clipped.
    """
    images, rows, columns = len(grey), grey.shape[1] // cell, grey.shape[2] // cell
    grey = grey[:, : rows * cell, : columns * cell]
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    np.subtract(grey[:, :, 2:], grey[:, :, :-2], out=across[:, :, 1:-1])
    np.subtract(grey[:, 2:], grey[:, :-2], out=down[:, 1:-1])
    strength = np.hypot(across, down)
    orientation = np.arctan2(down, across)
    orientation *= np.float32(BINS / np.pi)
    orientation += BINS  # -9 to 9 becomes 0 to 18: unsigned, each bin twice
    lower = orientation.astype(np.int32)
    share = orientation - lower
    row = np.arange(images * rows * cell, dtype=np.int32) // cell  # the images are stacked
    column = np.arange(columns * cell, dtype=np.int32) // cell
    place = (row.reshape(images, rows * cell)[:, :, None] * columns + column) * BINS
    upper_weight = (share * strength).ravel()
    histogram = np.bincount(
        (place + lower % BINS).ravel(), strength.ravel() - upper_weight, minlength=images * rows * columns * BINS
    )
    histogram += np.bincount(
        (place + (lower + 1) % BINS).ravel(), upper_weight, minlength=images * rows * columns * BINS
    )
    histogram = histogram.reshape(images, rows, columns, BINS).astype(np.float32)
    energy = ndimage.uniform_filter(np.square(histogram).sum(-1), (0, 3, 3), mode="nearest")
    length = np.sqrt(9 * energy + (_LEAST * cell * cell) ** 2)
    return np.minimum(histogram / length[..., None], _LARGEST)
