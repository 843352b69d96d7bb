"""Random augmentation of a batch of X-rays, on the device that trains."""

import torch
from torch.nn import functional

from train.loop.recipe import Augmentation


def augment(
    grey: torch.Tensor, ranges: Augmentation, generator: torch.Generator, part: slice, whole: int
) -> torch.Tensor:
    """Augment each image with its own random parameters; borders are padded with the nearest edge.

    Args:
        grey: float32 (batch, height, width), 0 to 1: this process's part of the global batch.
        ranges: ranges of the parameters.
        generator: on the CPU, seeded by the step, so that a resumed run draws the same parameters.
        part: rows of the global batch that these are.
        whole: images in the global batch. Parameters are drawn for all of them, so that the number of processes does
            not change those of an image.

    Returns:
        float32, same shape, 0 to 1.
    """

    def to_device(drawn: torch.Tensor) -> torch.Tensor:
        return drawn.to(grey.device, non_blocking=grey.is_cuda)

    def draw(extent: float) -> torch.Tensor:
        return to_device(((torch.rand(whole, generator=generator) * 2 - 1) * extent)[part])

    def chance(probability: float) -> torch.Tensor:
        return to_device((torch.rand(whole, generator=generator) < probability)[part])

    mirrored = chance(0.5 if ranges.flip else 0.0)
    angle, zoom = torch.deg2rad(draw(ranges.rotation)), 1 + draw(ranges.scale)
    across, down = 2 * draw(ranges.shift), 2 * draw(ranges.shift)  # grid coordinates span -1 to 1
    contrast, brightness = 1 + draw(ranges.contrast), draw(ranges.brightness)
    exponent, inverted = 1 + draw(ranges.gamma), chance(ranges.inversion)
    if ranges.resolution:  # drawn only if used, so that recipes without it keep their random numbers
        kept = torch.where(chance(0.5), 1 - draw(ranges.resolution).abs(), 1.0)

    if ranges.flip or ranges.rotation or ranges.scale or ranges.shift:
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        sign = torch.where(mirrored, -1.0, 1.0)
        rows = [torch.stack([cos * sign, -sin, across], 1), torch.stack([sin * sign, cos, down], 1)]
        grid = functional.affine_grid(torch.stack(rows, 1), [len(grey), 1, *grey.shape[1:]], align_corners=False)
        grey = functional.grid_sample(grey[:, None], grid, "bilinear", "border", align_corners=False)[:, 0]

    def each(values: torch.Tensor) -> torch.Tensor:
        return values[:, None, None]

    if ranges.gamma:
        grey = grey.clamp(0, 1) ** each(exponent)
    if ranges.contrast or ranges.brightness:
        mean = grey.mean((1, 2), keepdim=True)
        grey = (grey - mean) * each(contrast) + mean + each(brightness)
    if ranges.inversion:
        grey = torch.where(each(inverted), 1 - grey, grey)
    if ranges.resolution:
        grey = torch.stack([_reduced(image, share) for image, share in zip(grey, kept.tolist(), strict=True)])
    return grey.clamp(0, 1)


def _reduced(image: torch.Tensor, share: float) -> torch.Tensor:
    """An image (height, width) reduced to that share of its rows and columns and enlarged again."""
    small = [max(1, round(share * length)) for length in image.shape]
    if small == list(image.shape):
        return image
    reduced = functional.interpolate(image[None, None], small, mode="bilinear", antialias=True)
    return functional.interpolate(reduced, image.shape, mode="bicubic")[0, 0]
