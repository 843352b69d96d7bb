"""Random changes of a batch of radiographs, as tensor operations on the device that trains.

Two steps. `disturb` works on the stored pixels, before they are resized for the network: what happens to an image file
on its way to a grader (resolution, blur, noise, sharpening, JPEG). `augment` works at the network's image size: the
knee's position, the exposure, and erased rectangles.

Every change is drawn from generators seeded by the step and for the whole global batch, of which a process takes its
part. So a resumed run repeats its draws, and an image is changed alike over any number of processes. Nothing loops over
images or waits for the device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from train.loop.recipe import Augmentation

# JPEG's luminance quantisation table for quality 50 (ITU-T T.81, Annex K.1).
LUMINANCE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
ERASED_AREA = (0.02, 0.15)  # of the image
ERASED_ASPECT = 0.7  # the height is multiplied by up to exp(+-this), the width by the inverse
SHARPENED_DETAIL = 1.5  # pixels: sigma of the blur whose difference to the image an unsharp mask adds


class Draws:
    """Random numbers for one process' part of a global batch.

    Args:
        seed: of the step.
        part: rows of the global batch that this process computes.
        whole: rows of the global batch.
        device: where the images are.
    """

    def __init__(self, seed: int, part: slice, whole: int, device: torch.device):
        self._generator = torch.Generator().manual_seed(seed)
        self._seed, self._part, self._whole, self._device = seed, part, whole, device

    def _rand(self) -> torch.Tensor:
        drawn = torch.rand(self._whole, generator=self._generator)[self._part]
        return drawn.to(self._device, non_blocking=self._device.type == "cuda")

    def uniform(self, low: float, high: float) -> torch.Tensor:
        """float32 (batch,), uniform from low to high."""
        return low + (high - low) * self._rand()

    def either_way(self, extent: float) -> torch.Tensor:
        """float32 (batch,), uniform from -extent to extent."""
        return (self._rand() * 2 - 1) * extent

    def chance(self, probability: float) -> torch.Tensor:
        """bool (batch,), True for that share of images."""
        return self._rand() < probability

    def normal(self, height: int, width: int) -> torch.Tensor:
        """float32 (batch, height, width), standard normal, drawn on the device: too many to be sent there."""
        generator = torch.Generator(self._device).manual_seed(self._seed)
        shape = (self._whole, height, width)
        return torch.randn(shape, generator=generator, device=self._device)[self._part]

    def mixture(self, alpha: float) -> "Mixture":
        """Pairs of neighbouring rows, blended by one share a pair from Beta(alpha, alpha). The batch has even rows."""
        shares = np.random.default_rng(self._seed).beta(alpha, alpha, size=self._whole // 2).repeat(2)[self._part]
        partner = torch.arange(len(shares), device=self._device) ^ 1
        return Mixture(torch.from_numpy(shares.astype(np.float32)).to(self._device), partner)


@dataclass(frozen=True)
class Mixture:
    """Images of a batch, each blended with a partner (mixup).

    Attributes:
        share: float32 (batch,), the image's own weight; its partner has the rest.
        partner: int64 (batch,), the other row.
    """

    share: torch.Tensor
    partner: torch.Tensor

    def images(self, grey: torch.Tensor) -> torch.Tensor:
        """float32 (batch, height, width) -> the same shape, blended."""
        return torch.lerp(grey[self.partner], grey, _each(self.share))

    def loss(self, loss_of: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Loss float32 (batch,) towards the blended targets.

        Args:
            loss_of: the losses of the batch's outputs towards the targets of the given rows, int64 (batch,).
        """
        own = torch.arange(len(self.partner), device=self.partner.device)
        return torch.lerp(loss_of(self.partner), loss_of(own), self.share)


def disturb(grey: torch.Tensor, how: Augmentation, draws: Draws) -> torch.Tensor:
    """Reduce, blur, add noise to, sharpen and compress a share of the images each.

    Args:
        grey: float32 (batch, height, width), 0 to 1, the stored pixels.
        how: shares and ranges.
        draws: random numbers for these images.

    Returns:
        float32, same shape, 0 to 1, on the 256 levels of a stored image.
    """
    height, width = grey.shape[1:]
    if how.resolution or how.blur.share:
        kept = torch.ones(len(grey), device=grey.device)
        sigma = torch.zeros(len(grey), device=grey.device)
        if how.resolution:
            kept = torch.where(draws.chance(0.5), draws.uniform(1 - how.resolution, 1), kept)
        if how.blur.share:
            sigma = torch.where(draws.chance(how.blur.share), draws.uniform(*how.blur.sigma), sigma)
        down, across = (_reduced(kept, size) @ _blurred(sigma, size) for size in (height, width))
        grey = down @ grey @ across.mT
    if how.noise.share:
        sigma = torch.where(draws.chance(how.noise.share), draws.uniform(*how.noise.sigma) / 255, 0.0)
        grey = grey + _each(sigma) * draws.normal(height, width)
    if how.sharpen.share:
        amount = torch.where(draws.chance(how.sharpen.share), draws.uniform(*how.sharpen.amount), 0.0)
        down, across = (_blurred(torch.full_like(amount[:1], SHARPENED_DETAIL), size) for size in (height, width))
        grey = grey + _each(amount) * (grey - down @ grey @ across.mT)
    grey = (grey.clamp(0, 1) * 255).round()
    if how.compression.share:
        chosen, quality = draws.chance(how.compression.share), draws.uniform(*how.compression.quality).round()
        grey = torch.where(_each(chosen), jpeg(grey, quality), grey)
    return grey / 255


def resized(grey: torch.Tensor, size: int) -> torch.Tensor:
    """Stored pixels (batch, height, width), 0 to 1, at the network's size, as `Preprocessing` resizes on the CPU."""
    if grey.shape[1:] == (size, size):
        return grey
    larger = functional.interpolate(grey[:, None], (size, size), mode="bicubic", antialias=True)[:, 0]
    return (larger.clamp(0, 1) * 255).round() / 255


def augment(grey: torch.Tensor, how: Augmentation, draws: Draws) -> torch.Tensor:
    """Change position and exposure of each image, and erase a rectangle; outside the frame, the nearest edge repeats.

    Args:
        grey: float32 (batch, height, width), 0 to 1.
        how: the ranges to draw from.
        draws: random numbers for these images.

    Returns:
        float32, same shape, 0 to 1.
    """
    mirrored = draws.chance(0.5 if how.flip else 0.0)
    angle, zoom = torch.deg2rad(draws.either_way(how.rotation)), 1 + draws.either_way(how.scale)
    # Grid coordinates span -1 to 1.
    across, down = 2 * draws.either_way(how.shift), 2 * draws.either_way(how.shift)
    contrast, brightness = 1 + draws.either_way(how.contrast), draws.either_way(how.brightness)
    exponent, inverted = 1 + draws.either_way(how.gamma), draws.chance(how.inversion)

    if how.closer.share:
        zoom = torch.where(draws.chance(how.closer.share), 1 / draws.uniform(*how.closer.shown), zoom)

    if how.flip or how.rotation or how.scale or how.shift or how.closer.share:
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        sign = torch.where(mirrored, -1.0, 1.0)
        rows = [torch.stack([cos * sign, -sin, across], 1), torch.stack([sin * sign, cos, down], 1)]
        grid = functional.affine_grid(torch.stack(rows, 1), [len(grey), 1, *grey.shape[1:]], align_corners=False)
        grey = functional.grid_sample(grey[:, None], grid, "bilinear", "border", align_corners=False)[:, 0]
    if how.gamma:
        grey = grey.clamp(0, 1) ** _each(exponent)
    if how.contrast or how.brightness:
        mean = grey.mean((1, 2), keepdim=True)
        grey = (grey - mean) * _each(contrast) + mean + _each(brightness)
    if how.inversion:
        grey = torch.where(_each(inverted), 1 - grey, grey)
    grey = grey.clamp(0, 1)
    if how.erasing:
        grey = torch.where(_rectangles(how.erasing, *grey.shape[1:], draws), grey.mean((1, 2), keepdim=True), grey)
    return grey


def jpeg(grey: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Grey levels as a baseline JPEG file gives them back (ITU-T T.81; quality as libjpeg scales its table).

    Args:
        grey: float32 (batch, height, width), whole numbers 0 to 255.
        quality: float32 (batch,), 1 to 100.

    Returns:
        float32, same shape, whole numbers 0 to 255.
    """
    height, width = grey.shape[1:]
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    luminance = LUMINANCE.to(grey.device, non_blocking=True)
    table = ((luminance * _each(scale) + 50) / 100).floor().clamp(1, 255)[:, None, None]
    wave = torch.arange(8, device=grey.device)
    cosine = torch.cos((2 * wave + 1) * wave[:, None] * math.pi / 16) / 2
    cosine[0] /= math.sqrt(2)

    padded = functional.pad(grey[:, None], (0, -width % 8, 0, -height % 8), mode="replicate")[:, 0] - 128
    blocks = padded.unflatten(2, (-1, 8)).unflatten(1, (-1, 8)).transpose(2, 3)  # (batch, rows, columns, 8, 8)
    coefficients = (cosine @ blocks @ cosine.T / table).round() * table
    levels = (cosine.T @ coefficients @ cosine).transpose(2, 3).reshape(padded.shape) + 128
    return levels[:, :height, :width].round().clamp(0, 255)


def _each(values: torch.Tensor) -> torch.Tensor:
    """One value an image, to broadcast over its pixels."""
    return values[:, None, None]


def _blurred(sigma: torch.Tensor, size: int) -> torch.Tensor:
    """Matrices (batch, size, size) that blur a column of pixels: a Gaussian of sigma pixels; 0 changes nothing."""
    pixel = torch.arange(size, device=sigma.device)
    weights = torch.exp(-0.5 * ((pixel - pixel[:, None]) / _each(sigma.clamp(min=0.01))) ** 2)
    return weights / weights.sum(2, keepdim=True)


def _reduced(kept: torch.Tensor, size: int) -> torch.Tensor:
    """Matrices (batch, size, size) that reduce a column to a share of its pixels (triangle filter) and enlarge it again
    (bicubic), as Pillow resamples."""
    left = _each((kept * size).round().clamp(min=1))  # pixels after the reduction
    pixel = torch.arange(size, device=kept.device) + 0.5
    exists = pixel < left
    distance = (pixel - pixel[:, None] * size / left).abs() * left / size
    reduce = (1 - distance).clamp(min=0) * exists.mT
    distance = (pixel - pixel[:, None] * left / size).abs()
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    enlarge = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0)) * exists
    reduce = reduce / reduce.sum(2, keepdim=True).clamp(min=1e-6)
    return (enlarge / enlarge.sum(2, keepdim=True)) @ reduce


def _rectangles(share: float, height: int, width: int, draws: Draws) -> torch.Tensor:
    """bool (batch, height, width): a rectangle in that share of images, its centre anywhere."""
    chosen, area, aspect = draws.chance(share), draws.uniform(*ERASED_AREA), draws.either_way(ERASED_ASPECT)
    inside = []
    for size, factor in ((height, torch.exp(aspect)), (width, torch.exp(-aspect))):
        half = area.sqrt() * factor * size / 2
        pixel = torch.arange(size, device=area.device) + 0.5
        inside.append((pixel - draws.uniform(0, size)[:, None]).abs() < half[:, None])
    return chosen[:, None, None] & inside[0][:, :, None] & inside[1][:, None, :]
