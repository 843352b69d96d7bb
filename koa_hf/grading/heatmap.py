"""Heat maps: the exact class activation map (Zhou et al. 2016, CVPR) as pictures.

The head is average pooling and one linear layer, so a logit is the mean, over the final feature map, of a linear
function of each cell. Its value in a cell is that cell's contribution: no approximation, no backward pass. (For such a
head Grad-CAM gives the same map up to scale; a test compares.) Computed by
`koa_hf.grading.grader.class_activation_map`.
"""

import matplotlib
import numpy as np
from PIL import Image

# Perceptually uniform and monotonic in lightness, so it also reads without colour vision.
COLOUR_MAP = "inferno"


def for_grade(contributions: np.ndarray, grade: int) -> np.ndarray:
    """The evidence in favour of one grade, scaled to its own maximum.

    Args:
        contributions: float (5, height, width), one image's class activation map.
        grade: KL 0 to 4.

    Returns:
        float32 (height, width), 0 (none, or evidence against) to 1; all 0 where there is no evidence for the grade.
    """
    evidence = np.maximum(contributions[grade], 0).astype(np.float32)
    return evidence / (evidence.max() or np.float32(1))


def upsample(evidence: np.ndarray, height: int, width: int) -> np.ndarray:
    """One grade's map, enlarged smoothly to an image's size: float32 (height, width), 0 to 1."""
    enlarged = Image.fromarray(evidence.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(enlarged), 0, 1)  # bicubic interpolation overshoots


def colour(evidence: np.ndarray) -> np.ndarray:
    """One grade's map as an RGBA layer for the X-ray: uint8 (height, width, 4).

    Opacity grows with the evidence, so the X-ray is unchanged where there is none.
    """
    # The colour map's lowest fifth is black, which on bone would look like a shadow in the X-ray.
    rgba = matplotlib.colormaps[COLOUR_MAP](0.2 + 0.8 * evidence)
    rgba[..., 3] = evidence
    return np.round(rgba * 255).astype(np.uint8)


def overlay(pixels: np.ndarray, evidence: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """The X-ray with the evidence for one grade painted over it.

    Args:
        pixels: uint8 (height, width).
        evidence: the result of `for_grade`, of any size; it is enlarged to the X-ray's.
        opacity: 0 (the X-ray alone) to 1 (the strongest evidence hides the X-ray).

    Returns:
        uint8 (height, width, 3).
    """
    layer = colour(upsample(evidence, *pixels.shape)).astype(np.float32)
    alpha = opacity * layer[..., 3:] / 255
    return np.round(pixels[..., None] * (1 - alpha) + layer[..., :3] * alpha).astype(np.uint8)
