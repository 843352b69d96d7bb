"""Deletion test of the heat maps (Samek et al. 2017, https://arxiv.org/abs/1509.06321).

The hottest tenth of the X-ray is blurred away. Controls: a random tenth, and the tenth that is hottest in another
knee's map, since all knees lie alike and a map of the usual place alone would beat the random control. If the map is
true, its own tenth costs the grade more probability than either.
"""

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from koa_hf import Grader
from koa_hf.grading.metrics import bootstrap_mean
from koa_hf.network.preprocess import normalise
from koa_hf.progress import progress_bar
from train.loop.knee_images import KneeImages

DELETED = 0.1  # share of the X-ray
BLURRED_TO = 4  # pixels a side, then enlarged again: no joint space is left
BATCH_SIZE = 16

WHOLE, HOTTEST = "whole", "without the hottest tenth"
CONTROLS = ("without a random tenth", "without another knee's hottest tenth")


def _hottest(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Mask of the hottest `DELETED` share of each map's cells: float (n, height, width) -> bool (n, size, size)."""
    flat = maps.flatten(1)
    cells = max(1, round(DELETED * flat.shape[1]))
    mask = torch.zeros_like(flat).scatter_(1, flat.topk(cells).indices, 1.0).view_as(maps)
    return functional.interpolate(mask[:, None], (size, size))[:, 0] > 0.5


def delete_hottest(grader: Grader, images: KneeImages) -> dict[str, np.ndarray]:
    """Probability of each knee's grade on the whole X-ray and after each deletion: name -> float (n,)."""
    found: dict[str, list] = {name: [] for name in (WHOLE, HOTTEST, *CONTROLS)}
    generator = torch.Generator().manual_seed(0)
    size = grader.preprocessing.image_size

    def probabilities(pixels: torch.Tensor) -> np.ndarray:
        return grader.rules.probabilities(grader.forward(pixels).logits.cpu().numpy())

    with progress_bar("deletion test", len(images)) as advance:
        for batch in DataLoader(images, BATCH_SIZE):
            pixels = normalise(batch["pixels"])
            output = grader.forward(pixels)
            whole = grader.rules.probabilities(output.logits.cpu().numpy())
            grade = whole.argmax(1)
            rows = np.arange(len(grade))
            maps = output.maps.cpu()[rows, grade]
            # Blurring, unlike a black patch, adds no edges and keeps the brightness.
            blurred = functional.interpolate(
                functional.adaptive_avg_pool2d(pixels, BLURRED_TO), (size, size), mode="bilinear"
            )
            found[WHOLE].append(whole[rows, grade])
            # The map of a knee half a batch away, since the next one is of the same patient.
            scores = (maps, torch.rand(maps.shape, generator=generator), maps.roll(len(maps) // 2, 0))
            for name, score in zip((HOTTEST, *CONTROLS), scores, strict=True):
                changed = torch.where(_hottest(score, size)[:, None], blurred, pixels)
                found[name].append(probabilities(changed)[rows, grade])
            advance(len(rows))
    return {name: np.concatenate(values) for name, values in found.items()}


def summarise_deletion(found: dict[str, np.ndarray], patients: np.ndarray) -> dict:
    """Mean loss of probability for each deletion, and the difference between the hottest tenth and each control.

    Intervals are 95 % bootstrap intervals, resampled by patient.
    """
    lost = {name: found[WHOLE] - found[name] for name in (HOTTEST, *CONTROLS)}
    more = {name: lost[HOTTEST] - lost[name] for name in CONTROLS}
    return {
        "knees": len(patients),
        "deleted_share": DELETED,
        "mean_probability": {name: float(values.mean()) for name, values in found.items()},
        "mean_loss": {name: float(values.mean()) for name, values in lost.items()},
        "hottest_costs_more_than": {
            name: {
                "difference": float(values.mean()),
                "difference_95_by_patient": list(bootstrap_mean(values, patients)),
                "share_of_knees": float((values > 0).mean()),
            }
            for name, values in more.items()
        },
    }
