"""The trunk cache's engines agree, and what is stored is what the tail takes."""

import shutil

import pytest
import torch
from accelerate import Accelerator

from koa_hf.data.load import load_dataset
from koa_hf.network import xception
from koa_hf.network.preprocess import Preprocessing, normalise
from train.loop import trunk, trunk_cache
from train.loop.knee_images import KneeImages
from train.loop.trunk import OpenVinoTrunk, Trunk, candidate_trunks, channels_first, channels_last
from train.loop.trunk_cache import TrunkCache

SIZE = 71
CUTS = ["fc", "block11"]  # any order


@pytest.fixture(scope="module")
def network(short_network) -> torch.nn.Module:
    return short_network


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_openvino_computes_what_torch_computes(network, images):
    ours, theirs = Trunk(network, CUTS), OpenVinoTrunk(Trunk(network, CUTS), "fp32", SIZE)
    assert ours.cuts == theirs.cuts == ["block11", "fc"]
    with torch.no_grad():
        for one, other in zip(ours(images), theirs(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        for one, other in zip(ours(images), OpenVinoTrunk(ours, "bf16", SIZE)(images), strict=True):
            assert other.dtype == torch.bfloat16
            torch.testing.assert_close(one, other.float(), rtol=0.05, atol=0.05 * float(one.abs().max()))


@torch.no_grad()
def test_what_is_stored_is_channels_last_and_what_the_tail_takes(network, images):
    pair, vector = Trunk(network, CUTS)(images)
    assert (pair.shape, vector.shape) == ((3, 2, 5, 5, 728), (3, 2048))
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
    assert [one.engine for one in candidate_trunks(network, CUTS, accelerator, images=10, image_size=SIZE)] == ["torch"]
    assert capsys.readouterr().out == ""
    many = candidate_trunks(network, CUTS, accelerator, images=10_000, image_size=SIZE)
    assert [one.engine for one in many] == ["torch"]
    assert "no such layer" in capsys.readouterr().out


def test_a_cache_is_filled_by_the_faster_way_and_goes_on_with_the_one_that_began_it(
    network, dataset_folder, tmp_path, monkeypatch, capsys
):
    converted = OpenVinoTrunk(Trunk(network, CUTS), "fp32", SIZE)

    def convert(of: Trunk, precision: str, image_size: int) -> OpenVinoTrunk:  # once is enough
        assert (of.cuts, precision, image_size) == (converted.cuts, "fp32", SIZE)
        return converted

    monkeypatch.setattr(trunk, "WORTH_CONVERTING", 0)
    monkeypatch.setattr(trunk, "OpenVinoTrunk", convert)
    images = {"train": KneeImages(load_dataset(str(dataset_folder))["train"], Preprocessing(SIZE))}

    def engine(seconds: list[float]) -> str:
        cache = TrunkCache(tmp_path, Accelerator(cpu=True))
        used = []
        monkeypatch.setattr(cache, "_seconds", lambda *_: seconds)
        monkeypatch.setattr(cache, "_fill", lambda trunk, *_: used.append(trunk.engine.split()[0]))
        cache.open(network, images, {"train": "the same"}, CUTS)
        return used[0]

    assert engine([2.0, 1.0]) == "openvino"
    assert "trunk by torch: 125 ms per image" in capsys.readouterr().out
    assert engine([1.0, 2.0]) == "openvino"  # a resumed run computes what it would have
    shutil.rmtree(tmp_path)
    assert engine([1.0, 2.0]) == "torch"


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@torch.no_grad()
def test_the_tail_makes_of_a_cached_row_what_the_network_makes_of_the_image(
    network, dataset_folder, tmp_path, monkeypatch, engine
):
    chosen = OpenVinoTrunk(Trunk(network, CUTS), "fp32", SIZE) if engine == "openvino" else Trunk(network, CUTS)
    monkeypatch.setattr(trunk_cache, "candidate_trunks", lambda *_: [chosen])
    images = KneeImages(load_dataset(str(dataset_folder))["validation"], Preprocessing(SIZE))
    cache = TrunkCache(tmp_path, Accelerator(cpu=True), batch_size=5)  # the last batch is shorter
    cached = cache.open(network, {"validation": images}, {"validation": "these"}, CUTS)
    expected = network(normalise(torch.stack([images[row]["pixels"] for row in range(len(images))])))
    for cut in CUTS:
        rows = [cached[cut]["validation"][row] for row in range(len(images))]
        assert [row["label"] for row in rows] == images.split["label"][:]
        stored = torch.stack([row["activation"] for row in rows])
        logits = xception.Tail(network, cut).eval()(channels_first(stored))
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
