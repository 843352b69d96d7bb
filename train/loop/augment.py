"""Random changes of a batch of X-rays, as tensors on the device that trains."""

import torch
from torch.nn import functional

from train.loop.recipe import Augmentation


def augment(grey: torch.Tensor, how: Augmentation, generator: torch.Generator, part: slice, whole: int) -> torch.Tensor:
    """Change each image in its own way; what leaves the frame is filled by the nearest edge.

    Args:
        grey: float32 (batch, height, width), 0 to 1: this process' part of the global batch.
        how: the ranges to draw from.
        generator: on the CPU, seeded by the step, so that a resumed run draws the same again.
        part: where in the global batch of `whole` images this part lies. Drawing for the whole batch keeps an
            image's change the same over any number of processes.

    Returns:
        float32, same shape, 0 to 1.
    """

    def to_device(drawn: torch.Tensor) -> torch.Tensor:
        return drawn.to(grey.device, non_blocking=grey.is_cuda)

    def draw(extent: float) -> torch.Tensor:
        return to_device(((torch.rand(whole, generator=generator) * 2 - 1) * extent)[part])

    def chance(probability: float) -> torch.Tensor:
        return to_device((torch.rand(whole, generator=generator) < probability)[part])

    mirrored = chance(0.5 if how.flip else 0.0)
    angle, zoom = torch.deg2rad(draw(how.rotation)), 1 + draw(how.scale)
    across, down = 2 * draw(how.shift), 2 * draw(how.shift)  # grid coordinates span -1 to 1
    contrast, brightness = 1 + draw(how.contrast), draw(how.brightness)
    exponent, inverted = 1 + draw(how.gamma), chance(how.inversion)
    if how.resolution:  # drawn only where it is used, so that runs without it draw as they always have
        kept = torch.where(chance(0.5), 1 - draw(how.resolution).abs(), 1.0)

    if how.flip or how.rotation or how.scale or how.shift:
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        sign = torch.where(mirrored, -1.0, 1.0)
        rows = [torch.stack([cos * sign, -sin, across], 1), torch.stack([sin * sign, cos, down], 1)]
        grid = functional.affine_grid(torch.stack(rows, 1), [len(grey), 1, *grey.shape[1:]], align_corners=False)
        grey = functional.grid_sample(grey[:, None], grid, "bilinear", "border", align_corners=False)[:, 0]

    def each(values: torch.Tensor) -> torch.Tensor:
        return values[:, None, None]

    if how.gamma:
        grey = grey.clamp(0, 1) ** each(exponent)
    if how.contrast or how.brightness:
        mean = grey.mean((1, 2), keepdim=True)
        grey = (grey - mean) * each(contrast) + mean + each(brightness)
    if how.inversion:
        grey = torch.where(each(inverted), 1 - grey, grey)
    if how.resolution:
        grey = torch.stack([_reduced(image, share) for image, share in zip(grey, kept.tolist(), strict=True)])
    return grey.clamp(0, 1)


def _reduced(image: torch.Tensor, share: float) -> torch.Tensor:
    """An image (height, width) as if it had had only that share of its rows and columns."""
    small = [max(1, round(share * length)) for length in image.shape]
    if small == list(image.shape):
        return image
    reduced = functional.interpolate(image[None, None], small, mode="bilinear", antialias=True)
    return functional.interpolate(reduced, image.shape, mode="bicubic")[0, 0]
