import pytest
import torch

from train.loop.augment import augment
from train.loop.recipe import Augmentation

EVERYTHING = Augmentation(
    flip=True, rotation=12, scale=0.1, shift=0.06, brightness=0.1, contrast=0.2, gamma=0.2, inversion=0.5
)


@pytest.fixture
def knees() -> torch.Tensor:
    return torch.rand(8, 40, 40, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_image_is_changed_alike_over_any_number_of_processes(knees):
    whole = augment(knees, EVERYTHING, seeded(), slice(0, 8), 8)
    halves = [augment(knees[part], EVERYTHING, seeded(), part, 8) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(torch.cat(halves), whole)


def test_every_image_and_every_step_is_changed_in_its_own_way(knees):
    same = knees[:1].expand(8, 40, 40)
    once, again = (augment(same, EVERYTHING, seeded(seed), slice(0, 8), 8) for seed in (0, 1))
    assert len({image.sum().item() for image in once}) == 8
    assert not torch.allclose(once, again)
    assert once.min() >= 0
    assert once.max() <= 1


def test_a_flip_alone_mirrors_some_images_and_leaves_the_others_as_they_are(knees):
    flipped = augment(knees, Augmentation(flip=True), seeded(), slice(0, 8), 8)
    mirrored = [torch.allclose(after, before.flip(1), atol=1e-5) for after, before in zip(flipped, knees, strict=True)]
    kept = [torch.allclose(after, before, atol=1e-5) for after, before in zip(flipped, knees, strict=True)]
    assert any(mirrored)
    assert any(kept)
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))


def test_inversion_makes_photographic_negatives(knees):
    torch.testing.assert_close(augment(knees, Augmentation(inversion=1), seeded(), slice(0, 8), 8), 1 - knees)


def test_a_quarter_turn_turns_the_image(knees):
    # The angle is drawn from -180 to 180; a patch in a corner must come back somewhere at the same distance.
    corner = torch.zeros(1, 41, 41)
    corner[0, 20, 36:39] = 1
    turned = augment(corner, Augmentation(rotation=180), seeded(3), slice(0, 1), 1)
    y, x = torch.meshgrid(torch.arange(41) - 20.0, torch.arange(41) - 20.0, indexing="ij")
    weight = turned[0] / turned[0].sum()
    assert torch.hypot((weight * y).sum(), (weight * x).sum()).item() == pytest.approx(17, abs=0.5)
    assert (weight * x).sum().item() < 16


def test_half_of_the_images_lose_resolution_and_keep_their_grey(knees):
    changed = augment(knees, Augmentation(resolution=0.8), seeded(), slice(0, 8), 8)
    kept = [torch.equal(after, before) for after, before in zip(changed, knees, strict=True)]
    assert 0 < sum(kept) < 8
    for after, before in zip(changed, knees, strict=True):
        assert after.std() <= before.std()  # noise averages out
        assert after.mean().item() == pytest.approx(before.mean().item(), abs=0.02)
