"""Removal of uniform borders: collimation shutters, padding to a square, screenshot frames."""

import numpy as np

MIN_BORDER = 0.1
"""Smallest border that is removed, as a share of the side. In the release's 6,604 training and validation crops,
uniform air beside the leg takes up to 0.08 of the side, and the model was trained with it."""

_TOLERANCE = 0.03  # of the image's grey-level range: noise and JPEG ringing
_SPECKLES = 0.02  # share of outlier pixels allowed in the border's innermost line
_MARKERS = 0.15  # share of the border's pixels that letters and numbers may take
_MIN_SIDE = 32  # pixels; if less would remain, nothing is removed
_ROUNDS = 3  # borders within borders: a screenshot's frame around a shutter
_PARTS = 16  # in which lines are tested, until no later line can belong to the border: mostly one or two

Box = tuple[int, int, int, int]


def trim(grey: np.ndarray) -> tuple[np.ndarray, Box]:
    """Crop wide borders of one grey level (black, white or between), including letters in them.

    Each side is tested on its own, from the edge inwards. A border is uniform over the whole length of its side.

    Args:
        grey: uint8 (height, width).

    Returns:
        The part within the borders (a view of `grey`), and its box in pixels: left, top, right, bottom, where right
        and bottom are the first column and row outside, as in Pillow. Without a wide border, that is all of it.
    """
    height, width = grey.shape
    tolerance = max(2.0, _TOLERANCE * float(np.ptp(grey)))
    left, top, right, bottom = 0, 0, width, height
    for _ in range(_ROUNDS):
        within = grey[top:bottom, left:right]
        above, below = _border(within, tolerance), _border(within[::-1], tolerance)
        beside = within[above : len(within) - below]
        before, behind = _border(beside.T, tolerance), _border(beside.T[::-1], tolerance)
        if not above + below + before + behind:
            break
        left, top, right, bottom = left + before, top + above, right - behind, bottom - below
        if right - left < _MIN_SIDE or bottom - top < _MIN_SIDE:
            return grey, (0, 0, width, height)
    left, right = left * (left >= MIN_BORDER * width), width - (width - right) * (width - right >= MIN_BORDER * width)
    top, bottom = (
        top * (top >= MIN_BORDER * height),
        height - (height - bottom) * (height - bottom >= MIN_BORDER * height),
    )
    return grey[top:bottom, left:right], (left, top, right, bottom)


def _border(lines: np.ndarray, tolerance: float) -> int:
    """Number of leading lines of (lines, pixels), uint8, that form a border of the first line's grey level."""
    if not lines.size:
        return 0
    level = np.median(lines[0])
    least, most = max(np.ceil(level - tolerance), 0), min(np.floor(level + tolerance), 255)
    count, length = lines.shape
    unlike = np.zeros(0, int)  # pixels of each line that have another grey level
    for part in np.array_split(lines, min(_PARTS, count)):
        outside = (part < np.uint8(least)) | (part > np.uint8(most))
        unlike = np.append(unlike, np.count_nonzero(outside, axis=1))
        if unlike.sum() > _MARKERS * length * count:  # no later line can be the border's last
            break
    share = np.cumsum(unlike) / np.arange(1, len(unlike) + 1) / length
    last = np.flatnonzero((unlike <= _SPECKLES * length) & (share <= _MARKERS))
    return int(last[-1]) + 1 if last.size else 0
