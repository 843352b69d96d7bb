"""Is an X-ray shown the usual way round (bone bright), or as a photographic negative (bone dark)?

About 1.2 % of the public release are negatives. Nothing in a PNG says so, so it is read off the pixels: the image
is compared with a coarse drawing of where bone, joint space and soft tissue lie in an anteroposterior knee.
Ranks are compared instead of grey levels, so that exposure, windowing or a glaring screw can't outvote the anatomy.
A border of one grey level (collimation, padding) says nothing about polarity and is cut off first.
"""

import numpy as np
from PIL import Image

# One character for each 1/14 of the image: `#` bone, `+` bone edge or fibula, `.` soft tissue, blank air or joint.
# The picture is symmetric, so it serves left and right knees alike.
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
_FLAT = 0.02  # a row or column whose grey levels span less of the image's own range shows nothing
_BRIGHTNESS = {" ": 0.0, ".": 1.0, "+": 2.0, "#": 3.0}


def polarity(pixels: np.ndarray) -> float:
    """Spearman correlation of an X-ray with the anatomy of a knee: 1 is bone bright, -1 bone dark, 0 undecided.

    Args:
        pixels: uint8 (height, width), a knee about in the middle. Any monotone change of the grey levels leaves the
            result as it is; inverting them changes its sign.
    """
    side = len(_ANATOMY)
    small = Image.fromarray(_without_border(pixels)).convert("F").resize((side, side), Image.Resampling.BOX)
    return float(np.mean(_standard_ranks(np.asarray(small)) * _standard_ranks(_TEMPLATE)))


def is_negative(pixels: np.ndarray) -> bool:
    """Whether the X-ray (uint8, height x width) is a photographic negative. A blank image is not."""
    return polarity(pixels) < 0


def _without_border(pixels: np.ndarray) -> np.ndarray:
    """The image without the rows and columns at its edges that are of one grey level."""
    flat = _FLAT * np.ptp(pixels)
    rows = np.flatnonzero(np.ptp(pixels, axis=1) > flat)
    if not rows.size:
        return pixels
    pixels = pixels[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(np.ptp(pixels, axis=0) > flat)
    return np.ascontiguousarray(pixels[:, columns[0] : columns[-1] + 1]) if columns.size else pixels


def _standard_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties averaged, scaled to mean 0 and variance 1; all zeros where every value is the same."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)]
    ranks -= ranks.mean()
    return ranks / (ranks.std() or 1.0)


_TEMPLATE = np.array([[_BRIGHTNESS[character] for character in row] for row in _ANATOMY])
