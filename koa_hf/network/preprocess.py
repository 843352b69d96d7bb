"""The input transform, `Radiograph` -> tensor.

Training, evaluation, the Grader and the `pretrained_cfg` in config.json all use this transform: squash to a square,
bicubic, three equal channels, mean and standard deviation 0.5 (values -1 to 1, as Xception's authors trained it).
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from koa_hf.imaging.radiograph import Radiograph

MEAN = STD = 0.5


@dataclass(frozen=True)
class Preprocessing:
    """The transform. Only the image size, in pixels, is configurable."""

    image_size: int = 299

    def to_uint8(self, radiograph: Radiograph) -> np.ndarray:
        """The X-ray as the network sees it, before normalisation: uint8 (image_size, image_size)."""
        size = (self.image_size, self.image_size)
        return np.array(radiograph.image.resize(size, Image.Resampling.BICUBIC))

    def __call__(self, radiograph: Radiograph) -> torch.Tensor:
        """float32 (3, image_size, image_size), values -1 to 1."""
        return normalise(torch.from_numpy(self.to_uint8(radiograph)))

    def pretrained_cfg(self) -> dict:
        """The same transform as entries of timm's `pretrained_cfg`."""
        return {
            "input_size": [3, self.image_size, self.image_size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
        }


def normalise(grey: torch.Tensor) -> torch.Tensor:
    """Grey (..., height, width), uint8 or float 0 to 1 -> float32 (..., 3, height, width), values -1 to 1."""
    grey = grey.float().div(255) if grey.dtype == torch.uint8 else grey.float()
    scaled = (grey - MEAN) / STD
    return scaled.unsqueeze(-3).expand(*grey.shape[:-2], 3, *grey.shape[-2:])
