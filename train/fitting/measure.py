"""One pass of a network over images for `train/calibrate.py`: logits, and what its layers make of each image."""

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
"""Where familiarity is tried: early, middle and late steps of the network."""

BATCH_SIZE = 16


@dataclass(frozen=True)
class Measured:
    """Output for n images.

    Attributes:
        logits: float32 (n, 5).
        mirrored: float32 (n, 5), of the mirror images; None where they weren't asked for.
        layers: step -> float32 (n, channels), its output averaged over the image.
    """

    logits: np.ndarray
    mirrored: np.ndarray | None
    layers: dict[str, np.ndarray]

    def with_more(self, other: "Measured") -> "Measured":
        """These images and others after them, without mirror images."""
        layers = {name: np.concatenate([rows, other.layers[name]]) for name, rows in self.layers.items()}
        return Measured(np.concatenate([self.logits, other.logits]), None, layers)


@torch.inference_mode()
def measure(network: nn.Module, precision: str, images: Dataset, what: str, mirror: bool = False) -> Measured:
    """Run a network over images, without any rules.

    Args:
        network: as `xception.folded` makes it, on its device.
        precision: what to compute in.
        images: rows {"pixels": uint8 (size, size)}, as `train.loop.knee_images.KneeImages` has them.
        what: what they are, for the progress bar.
        mirror: run their mirror images too.
    """
    device = next(network.parameters()).device
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("logits", "mirrored", *LAYERS)}
    with progress_bar(f"measuring {what}", len(images), show=True) as advance:
        for batch in DataLoader(images, BATCH_SIZE):
            pixels = normalise(batch["pixels"]).to(device)
            seen = _run(network, pixels, precision)
            if mirror:
                seen["mirrored"] = _run(network, pixels.flip(-1), precision)["logits"]
            for name, values in seen.items():
                rows[name].append(values)
            for _ in pixels:
                advance()
    whole = {name: np.concatenate(values) for name, values in rows.items() if values}
    return Measured(whole["logits"], whole.get("mirrored"), {name: whole[name] for name in LAYERS})


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
