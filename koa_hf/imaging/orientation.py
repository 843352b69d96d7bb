"""Orientation of a knee X-ray: upright (femur above tibia), or upside down.

A linear model on HOG features of the image minus those of the image rotated by 180 degrees: femur, patella and fibula
lie on one side of the joint space only. By construction, rotating an X-ray flips the score's sign, and a photographic
negative scores as its positive. Fitted on the train split by `train/fit_orientation.py`; results in
results/orientation/.
"""

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from koa_hf.imaging import collimation, laterality
from koa_hf.imaging.hog import BINS, hog
from koa_hf.imaging.radiograph import Radiograph

WEIGHTS_FILE = Path(__file__).with_name("orientation.safetensors")
SIDE, CELL = 112, 16  # pixels
CELLS = SIDE // CELL

LEAST = 1.0
"""Log-odds above which an X-ray counts as upside down. Images that show no knee may exceed it, too."""


def uprightness(images: np.ndarray) -> np.ndarray:
    """HOG features of images minus those of the images rotated by 180 degrees.

    Args:
        images: uint8 (n, `SIDE`, `SIDE`).

    Returns:
        float32 (n, `CELLS`, `CELLS`, `BINS`); rotating an image rotates and negates it.
    """
    features = hog(images.astype(np.float32) / 255, CELL)
    return features - features[:, ::-1, ::-1]


def rotated_180(pixels: np.ndarray) -> np.ndarray:
    """An X-ray (height, width) rotated by 180 degrees."""
    return np.ascontiguousarray(pixels[::-1, ::-1])


def rotated(film: Radiograph, quarters: int) -> Radiograph:
    """A film rotated counter-clockwise by so many quarters of a turn, with the directions that its file states."""
    pixels = np.ascontiguousarray(np.rot90(film.pixels, quarters))
    return dataclasses.replace(film, pixels=pixels, orientation=laterality.turned(film.orientation, quarters))


def reduced(pixels: np.ndarray) -> np.ndarray:
    """The input of `uprightness`, without wide borders: uint8 (height, width) -> uint8 (`SIDE`, `SIDE`)."""
    within = np.ascontiguousarray(collimation.trim(pixels)[0])
    return np.asarray(Image.fromarray(within).resize((SIDE, SIDE), Image.Resampling.BOX))


@cache
def _weights() -> np.ndarray:
    return load_file(WEIGHTS_FILE)["weights"].reshape(CELLS * CELLS * BINS)


def score(pixels: np.ndarray) -> float:
    """Log-odds that a knee X-ray, uint8 (height, width), is upside down."""
    return float(uprightness(reduced(pixels)[None]).ravel() @ _weights())


def is_upside_down(pixels: np.ndarray) -> bool:
    """True if a knee X-ray, uint8 (height, width), is upside down."""
    return score(pixels) > LEAST
