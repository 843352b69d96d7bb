import io

import numpy as np
import pytest
import torch
from PIL import Image

from koa_hf.imaging import phantom
from train.loop.augment import Draws, augment, disturb, jpeg, resized
from train.loop.recipe import Augmentation

EVERYTHING = Augmentation(
    flip=True, rotation=12, scale=0.1, shift=0.06, brightness=0.1, contrast=0.2, gamma=0.2, inversion=0.5, erasing=0.5
)
DISTURBED = Augmentation(
    resolution=0.6,
    blur={"share": 0.5},
    noise={"share": 0.5},
    sharpen={"share": 0.5},
    compression={"share": 0.5},
)


@pytest.fixture(scope="module")
def knees() -> torch.Tensor:
    """Eight drawn knees, float32 (8, 96, 96), 0 to 1."""
    return torch.from_numpy(np.stack([phantom.draw_knee(k % 5, seed=k, size=96) for k in range(8)])).float() / 255


def draws(seed: int = 0, part: slice = slice(0, 8)) -> Draws:
    return Draws(seed, part, 8, torch.device("cpu"))


@pytest.mark.parametrize(("step", "how"), [(augment, EVERYTHING), (disturb, DISTURBED)])
def test_an_image_is_changed_alike_over_any_number_of_processes(knees, step, how):
    whole = step(knees, how, draws())
    halves = [step(knees[part], how, draws(part=part)) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(torch.cat(halves), whole)


@pytest.mark.parametrize(("step", "how"), [(augment, EVERYTHING), (disturb, DISTURBED)])
def test_every_image_and_every_step_is_changed_in_its_own_way(knees, step, how):
    same = knees[:1].expand_as(knees)
    once, again = (step(same, how, draws(seed)) for seed in (0, 1))
    assert len({image.sum().item() for image in once}) > 6
    assert not torch.allclose(once, again)
    assert once.min() >= 0
    assert once.max() <= 1


def test_a_flip_alone_mirrors_some_images_and_leaves_the_others_as_they_are(knees):
    flipped = augment(knees, Augmentation(flip=True), draws())
    mirrored = [torch.allclose(after, before.flip(1), atol=1e-5) for after, before in zip(flipped, knees, strict=True)]
    kept = [torch.allclose(after, before, atol=1e-5) for after, before in zip(flipped, knees, strict=True)]
    assert any(mirrored)
    assert any(kept)
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))


def test_inversion_makes_photographic_negatives(knees):
    torch.testing.assert_close(augment(knees, Augmentation(inversion=1), draws()), 1 - knees)


def test_a_quarter_turn_turns_the_image():
    # The angle is drawn from -180 to 180; a patch at the edge must come back somewhere at the same distance.
    edge = torch.zeros(1, 41, 41)
    edge[0, 20, 36:39] = 1
    turned = augment(edge, Augmentation(rotation=180), Draws(3, slice(0, 1), 1, torch.device("cpu")))
    y, x = torch.meshgrid(torch.arange(41) - 20.0, torch.arange(41) - 20.0, indexing="ij")
    weight = turned[0] / turned[0].sum()
    assert torch.hypot((weight * y).sum(), (weight * x).sum()).item() == pytest.approx(17, abs=0.5)
    assert (weight * x).sum().item() < 16


def test_a_share_of_the_images_comes_closer_to_the_middle():
    ring = torch.ones(8, 61, 61)
    ring[:, 12:-12, 12:-12] = 0  # dark within 0.6 of the width
    closer = augment(ring, Augmentation(closer={"share": 0.5, "shown": (0.4, 0.55)}), draws())
    dark = closer.amax((1, 2)) < 1e-3
    assert 0 < int(dark.sum()) < 8
    torch.testing.assert_close(closer[~dark], ring[~dark])


def test_erasing_puts_the_mean_grey_into_a_rectangle_of_some_images(knees):
    erased = augment(knees, Augmentation(erasing=0.5), draws())
    changed = [(after != before) for after, before in zip(erased, knees, strict=True)]
    assert 0 < sum(bool(where.any()) for where in changed) < 8
    for where, after, before in zip(changed, erased, knees, strict=True):
        if where.any():
            rows, columns = where.any(1).nonzero(), where.any(0).nonzero()
            area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) / where.numel()
            assert area < 0.16  # less where it reaches over the frame
            torch.testing.assert_close(after[where], before.mean().expand(int(where.sum())))


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_compression_is_what_libjpeg_does(knees, quality):
    grey = (knees * 255).round()
    files = [io.BytesIO() for _ in grey]
    for image, file in zip(grey.numpy().astype(np.uint8), files, strict=True):
        Image.fromarray(image).save(file, "JPEG", quality=quality)
    expected = torch.from_numpy(np.stack([np.array(Image.open(file)) for file in files])).float()
    found = jpeg(grey, torch.full((8,), float(quality)))
    assert (found - expected).abs().mean() < 0.4  # grey levels of 255; the encoders round differently


def test_half_of_the_images_lose_resolution_and_keep_their_grey(knees):
    changed = disturb(knees, Augmentation(resolution=0.8), draws())
    kept = [torch.allclose(after, before, atol=1e-6) for after, before in zip(changed, knees, strict=True)]
    assert 0 < sum(kept) < 8
    for after, before in zip(changed, knees, strict=True):
        assert after.diff(dim=1).abs().mean() <= before.diff(dim=1).abs().mean() + 1e-6
        assert after.mean().item() == pytest.approx(before.mean().item(), abs=0.02)


def test_a_reduction_is_what_pillow_makes_of_it(knees):
    sharp = Augmentation(resolution=0.5)
    changed = disturb(knees, sharp, draws())
    drawn = draws()
    kept = torch.where(drawn.chance(0.5), drawn.uniform(0.5, 1), 1.0)
    for share, image, after in zip(kept, knees.numpy(), changed, strict=True):
        size = round(float(share) * 96)
        small = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(small.resize((96, 96), Image.Resampling.BICUBIC)))
        torch.testing.assert_close(after, expected.clamp(0, 1), atol=0.003, rtol=0)


@pytest.mark.parametrize(
    ("how", "rougher"),
    [
        (Augmentation(blur={"share": 1, "sigma": (1, 1)}), False),
        (Augmentation(noise={"share": 1, "sigma": (8, 8)}), True),
        (Augmentation(sharpen={"share": 1, "amount": (1, 1)}), True),
    ],
)
def test_blur_smooths_and_noise_and_sharpening_roughen(knees, how, rougher):
    before, after = (images.diff(dim=1).abs().mean((1, 2)) for images in (knees, disturb(knees, how, draws())))
    assert ((after > before) == rougher).all()


def test_noise_has_the_sigma_that_was_asked_for():
    grey = torch.full((8, 96, 96), 0.5)
    noisy = disturb(grey, Augmentation(noise={"share": 1, "sigma": (8, 8)}), draws())
    assert (noisy - grey).std().item() * 255 == pytest.approx(8, abs=0.2)


def test_stored_pixels_are_resized_as_the_network_gets_them_elsewhere(knees):
    grey = (knees * 255).round().numpy().astype(np.uint8)
    expected = np.stack(
        [np.array(Image.fromarray(image).resize((128, 128), Image.Resampling.BICUBIC)) for image in grey]
    )
    found = resized(torch.from_numpy(grey).float() / 255, 128) * 255
    assert np.abs(found.numpy() - expected).mean() < 0.3  # Pillow also rounds between rows and columns
