"""The heat maps of a film's knees as one picture."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from koa_hf.grading import heatmap
from koa_hf.grading.examination import GradedKnee

HEIGHT = 600  # pixels of each knee


def png(knees: Sequence[GradedKnee]) -> bytes:
    """A PNG file, RGB: each knee `HEIGHT` high under the heat map of its grade, side by side."""
    pictures = []
    for knee in knees:
        evidence = heatmap.for_grade(knee.grading.heatmap, knee.grading.grade)
        xray = knee.radiograph.image
        width = max(1, round(xray.width * HEIGHT / xray.height))
        shown = xray.resize((width, HEIGHT), Image.Resampling.BICUBIC)
        pictures.append(heatmap.overlay(np.asarray(shown), evidence))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(pictures, axis=1)).save(buffer, "PNG")
    return buffer.getvalue()
