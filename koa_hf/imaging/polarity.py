"""Polarity of a knee X-ray: bone bright (the usual display), or bone dark (a photographic negative).

About 1.2 % of the public release are negatives, and PNG has no tag for it. The image is compared with a 14 x 14
template of bone, joint space and soft tissue in an anteroposterior knee. Ranks are compared instead of grey levels, so
exposure, windowing and metal hardly matter. Uniform borders (collimation, padding) are removed first.
"""

import numpy as np
from PIL import Image

# One character for each 1/14 of the image: `#` bone, `+` bone edge or fibula, `.` soft tissue, blank air or joint.
# Symmetric, so that it fits left and right knees alike.
_ANATOMY = (
    "  .+######+.  ",
    "  .########.  ",
    " .+########+. ",
    " .##########. ",
    " .##########. ",
    " .####++####. ",
    " .+##+..+##+. ",
    "  .+.    .+.  ",
    "  ...++++...  ",
    " .+########+. ",
    " .+########+. ",
    "  .########.  ",
    "  .+######+.  ",
    "  ..######..  ",
)
_FLAT = 0.02  # share of the image's grey-level range; rows and columns that span less are border
_BRIGHTNESS = {" ": 0.0, ".": 1.0, "+": 2.0, "#": 3.0}


def polarity(pixels: np.ndarray) -> float:
    """Spearman correlation of an X-ray with the anatomy of a knee: 1 is bone bright, -1 bone dark, 0 undecided.

    Args:
        pixels: uint8 (height, width), a knee roughly centred. The result is invariant to monotone changes of the
            grey levels; inverting them flips its sign.
    """
    side = len(_ANATOMY)
    small = Image.fromarray(_without_border(pixels)).convert("F").resize((side, side), Image.Resampling.BOX)
    return float(np.mean(_standard_ranks(np.asarray(small)) * _standard_ranks(_TEMPLATE)))


def is_negative(pixels: np.ndarray) -> bool:
    """True if an X-ray, uint8 (height, width), is a photographic negative; False for a blank image."""
    return polarity(pixels) < 0


def _without_border(pixels: np.ndarray) -> np.ndarray:
    """The image without uniform rows and columns at its edges."""
    flat = _FLAT * np.ptp(pixels)
    rows = np.flatnonzero(np.ptp(pixels, axis=1) > flat)
    if not rows.size:
        return pixels
    pixels = pixels[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(np.ptp(pixels, axis=0) > flat)
    return np.ascontiguousarray(pixels[:, columns[0] : columns[-1] + 1]) if columns.size else pixels


def _standard_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties averaged, scaled to mean 0 and variance 1; all zeros for constant values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)]
    ranks -= ranks.mean()
    return ranks / (ranks.std() or 1.0)


_TEMPLATE = np.array([[_BRIGHTNESS[character] for character in row] for row in _ANATOMY])
