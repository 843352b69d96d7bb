"""Histograms of oriented gradients (Dalal and Triggs 2005, https://doi.org/10.1109/CVPR.2005.177), in numpy.

The orientation is unsigned, so a photographic negative has the same features as its positive.
"""

import numpy as np

BINS = 9
"""Orientations, 20 degrees each."""

_LEAST = 0.02  # grey levels (0 to 1) a pixel: below it a gradient is noise, and stays small when normalised
_LARGEST = 0.5


def hog(grey: np.ndarray, cell: int) -> np.ndarray:
    """Features of images.

    Args:
        grey: float32 (images, height, width), values about 0 to 1; what is left of whole cells is ignored.
        cell: width and height of a cell, pixels.

    Returns:
        float32 (images, height // cell, width // cell, `BINS`): each cell's gradients by orientation, every gradient
        shared between the two nearest, divided by the length of that of the 3 x 3 cells around; values 0 to 0.5.
    """
    from scipy import ndimage  # here, because a demo should not wait for it to start

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
