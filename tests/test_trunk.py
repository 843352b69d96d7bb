"""The trunk cache's engines agree, and what is stored is what the tail takes."""

import pytest
import torch
from accelerate import Accelerator

from koa_hf import xception
from train import trunk
from train.trunk import OpenVinoTrunk, Trunk, channels_first, channels_last

SIZE = 96
CUTS = ["fc", "block11"]  # any order


@pytest.fixture(scope="module")
def network(model_folder) -> torch.nn.Module:
    return xception.load(model_folder)[0]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_openvino_computes_what_torch_computes(network, images):
    ours, theirs = Trunk(network, CUTS), OpenVinoTrunk(Trunk(network, CUTS), "fp32", SIZE)
    assert ours.cuts == theirs.cuts == ["block11", "fc"]
    with torch.no_grad():
        for one, other in zip(ours(images), theirs(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert [value.dtype for value in OpenVinoTrunk(Trunk(network, CUTS), "bf16", SIZE)(images)] == 2 * [torch.bfloat16]


@torch.no_grad()
def test_what_is_stored_is_channels_last_and_what_the_tail_takes(network, images):
    pair, vector = Trunk(network, CUTS)(images)
    assert (pair.shape, vector.shape) == ((3, 2, 6, 6, 728), (3, 2048))
    for stored, cut in ((pair, "block11"), (vector, "fc")):
        assert stored.is_contiguous()
        assert channels_last(channels_first(stored)).equal(stored)
        logits = xception.Tail(network, cut).eval()(channels_first(stored))
        torch.testing.assert_close(logits, network(images), rtol=1e-3, atol=1e-3)


def test_few_images_and_a_network_that_openvino_can_not_take_are_left_to_torch(network, monkeypatch, capsys):
    accelerator = Accelerator(cpu=True)

    def refused(*_):
        raise RuntimeError("no such layer")

    monkeypatch.setattr(trunk, "OpenVinoTrunk", refused)
    assert trunk.fastest(network, CUTS, accelerator, images=10, image_size=SIZE).engine == "torch"
    assert capsys.readouterr().out == ""
    assert trunk.fastest(network, CUTS, accelerator, images=10_000, image_size=SIZE).engine == "torch"
    assert "no such layer" in capsys.readouterr().out
