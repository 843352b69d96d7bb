"""Is a knee X-ray the usual way up (femur above tibia), or upside down?

A linear model on the difference between the picture's histograms of oriented gradients and those of the picture turned
by 180 degrees: femur, patella and fibula are on one side of the joint space only. By construction turning an X-ray
changes the score's sign, and a photographic negative has the score of its positive. Fitted on the train split by
`train/fit_orientation.py`; what it is worth is in results/orientation/.
"""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from koa_hf.imaging import collimation
from koa_hf.imaging.hog import BINS, hog

WEIGHTS_FILE = Path(__file__).with_name("orientation.safetensors")
SIDE, CELL = 112, 16  # pixels
CELLS = SIDE // CELL

LEAST = 1.0
"""Score at which an X-ray counts as upside down: the odds are e to 1 by then. What is no knee may pass as well."""


def uprightness(images: np.ndarray) -> np.ndarray:
    """What tells the two ways up apart: the features of images less those of the images turned by 180 degrees.

    Args:
        images: uint8 (n, `SIDE`, `SIDE`).

    Returns:
        float32 (n, `CELLS`, `CELLS`, `BINS`); of a turned image the same, turned, with the other sign.
    """
    features = hog(images.astype(np.float32) / 255, CELL)
    return features - features[:, ::-1, ::-1]


def rotated_180(pixels: np.ndarray) -> np.ndarray:
    """An X-ray (height, width) turned by 180 degrees."""
    return np.ascontiguousarray(pixels[::-1, ::-1])


def reduced(pixels: np.ndarray) -> np.ndarray:
    """An X-ray as `uprightness` takes it, without wide borders: uint8 (height, width) -> uint8 (`SIDE`, `SIDE`)."""
    within = np.ascontiguousarray(collimation.trim(pixels)[0])
    return np.asarray(Image.fromarray(within).resize((SIDE, SIDE), Image.Resampling.BOX))


@cache
def _weights() -> np.ndarray:
    from safetensors.numpy import load_file

    return load_file(WEIGHTS_FILE)["weights"].reshape(CELLS * CELLS * BINS)


def score(pixels: np.ndarray) -> float:
    """Logarithm of the odds that a knee X-ray (uint8, height x width) is upside down rather than upright."""
    return float(uprightness(reduced(pixels)[None]).ravel() @ _weights())


def is_upside_down(pixels: np.ndarray) -> bool:
    """Whether a knee X-ray (uint8, height x width) has to be turned by 180 degrees to be the usual way up."""
    return score(pixels) > LEAST
