"""Feature extraction: logits, and the pooled output of several layers, in one forward pass."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from koa_hf.network import xception
from koa_hf.network.precision import autocast
from koa_hf.network.preprocess import normalise
from koa_hf.progress import progress_bar

LAYERS = ("block2", "block4", "block8", "block11", "block12", "act4")
"""Candidates for out-of-distribution detection: early, middle and late steps of the network."""

BATCH_SIZE = 16


@dataclass(frozen=True)
class LayerFeatures:
    """Network output for n images.

    Attributes:
        logits: float32 (n, 5).
        layers: step -> float32 (n, channels), averaged over the image.
    """

    logits: np.ndarray
    layers: dict[str, np.ndarray]

    def concatenated(self, other: "LayerFeatures") -> "LayerFeatures":
        """These images followed by others."""
        layers = {name: np.concatenate([rows, other.layers[name]]) for name, rows in self.layers.items()}
        return LayerFeatures(np.concatenate([self.logits, other.logits]), layers)


@torch.inference_mode()
def extract_features(network: nn.Module, precision: str, images: Dataset, what: str) -> LayerFeatures:
    """Run a network over images, without grading rules.

    Args:
        network: folded by `xception.folded`, on its device.
        precision: of the computation.
        images: rows {"pixels": uint8 (size, size)}, such as `train.loop.knee_images.KneeImages`.
        what: name of the images, for the progress bar.
    """
    device = next(network.parameters()).device
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("logits", *LAYERS)}
    with progress_bar(f"features of {what}", len(images)) as advance:
        for batch in DataLoader(images, BATCH_SIZE):
            pixels = normalise(batch["pixels"]).to(device)
            seen = _run(network, pixels, precision)
            for name, values in seen.items():
                rows[name].append(values)
            advance(len(pixels))
    logits, *layers = (np.concatenate(values) for values in rows.values())
    return LayerFeatures(logits, dict(zip(LAYERS, layers, strict=True)))


def _run(network: nn.Module, pixels: torch.Tensor, precision: str) -> dict[str, np.ndarray]:
    activation = pixels.contiguous(memory_format=torch.channels_last)
    first, seen = xception.STEPS[0], {}
    with autocast(pixels.device, precision):
        for name in LAYERS:
            after = xception.STEPS[xception.STEPS.index(name) + 1]
            activation = xception.run_steps(network, activation, first, after)
            seen[name] = activation.float().mean((2, 3)).cpu().numpy()
            first = after
    return seen | {"logits": network.forward_head(activation.float()).cpu().numpy()}
