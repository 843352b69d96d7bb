import copy

import pytest
import torch

from koa_hf.errors import KoaError
from koa_hf.network import xception


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    model = xception.build(pretrained=False)
    xception.estimate_batch_norm_statistics(model, torch.randn(8, 3, 71, 71))
    return model


def trainable(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def test_the_last_20_keras_layers_have_the_papers_parameter_count(network):
    xception.select_trainable(network, "last_20")
    assert trainable(network) == 7_336_621
    xception.select_trainable(network, "all")
    assert trainable(network) == 20_817_197
    xception.select_trainable(network, "head")
    assert trainable(network) == 5 * 2048 + 5


@pytest.mark.parametrize("part", xception.TRAINABLE_PARTS)
def test_no_trained_parameter_lies_in_front_of_its_cut(network, part):
    xception.select_trainable(network, part)
    tail = xception.Tail(network, xception.TRAINABLE_PARTS[part].cut)
    assert trainable(tail) == trainable(network)


@pytest.mark.parametrize("cut", ["conv1", "block10", "block11_start", "block11", "block12", "fc"])
def test_folded_trunk_and_tail_together_are_the_network(network, cut):
    images = torch.randn(2, 3, 71, 71)
    with torch.no_grad():
        at_cut = xception.run_steps(xception.folded(network), images, "conv1", cut)
        assert torch.allclose(xception.Tail(network, cut).eval()(at_cut), network(images), atol=1e-4)


@pytest.mark.parametrize("batch_norm", ["frozen", "batch"])
@pytest.mark.parametrize("part", ["last_20", "all"])
def test_the_tail_learns_what_the_network_would(short_network, part, batch_norm):
    images = torch.randn(2, 3, 71, 71, dtype=torch.float64)  # where rounding moves no activation across its threshold
    gradients = []
    for tailed in (False, True):
        copied = copy.deepcopy(short_network).double()
        xception.select_trainable(copied, part)
        xception.train_mode(copied, batch_norm)
        cut = xception.TRAINABLE_PARTS[part].cut
        activation = xception.run_steps(copied, images, "conv1", cut).detach() if tailed else images
        logits = xception.Tail(copied, cut)(activation) if tailed else copied(images)
        torch.nn.functional.cross_entropy(logits, torch.arange(2)).backward()
        gradients.append({name: p.grad for name, p in copied.named_parameters() if p.requires_grad})
    for name, expected in gradients[0].items():
        assert torch.allclose(gradients[1][name], expected, rtol=1e-6, atol=1e-8), name


def test_a_cache_at_a_cut_is_named_by_what_lies_in_front_of_it(network):
    before = xception.fingerprint(network, before="block11")
    changed = copy.deepcopy(network)
    torch.nn.init.zeros_(changed.block11.rep[7].conv1.weight)  # trained behind the cut
    assert xception.fingerprint(changed, before="block11") == before
    torch.nn.init.zeros_(changed.block11.rep[4].conv1.weight)
    assert xception.fingerprint(changed, before="block11") != before


def test_frozen_batch_normalisation_keeps_its_statistics_in_training(network):
    xception.select_trainable(network, "last_20")
    tail = xception.Tail(network, "block11")
    before = network.bn4.running_mean.clone()
    xception.train_mode(tail, "frozen")
    tail(torch.randn(2, 2, 728, 6, 6))
    assert torch.equal(network.bn4.running_mean, before)
    xception.train_mode(tail, "batch")
    assert network.bn4.training
    assert not network.block11.rep[2].training  # in the tail, but frozen


def test_a_saved_model_loads_equal(network, tmp_path):
    xception.save_model(network, tmp_path, image_size=96)
    loaded, preprocessing = xception.load_model(tmp_path)
    assert preprocessing.image_size == 96
    assert xception.fingerprint(loaded) == xception.fingerprint(network)


def test_a_folder_that_is_no_model_is_refused_in_one_sentence(network, tmp_path):
    with pytest.raises(KoaError, match=r"not a model folder: it has no config\.json"):
        xception.load_model(tmp_path)
    xception.save_model(network, tmp_path, image_size=96)
    weights = tmp_path / xception.WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(KoaError, match="damaged"):
        xception.load_model(tmp_path)


def test_missing_imagenet_weights_are_named(tmp_path):
    with pytest.raises(KoaError, match=r"no ImageNet weights at .*nowhere"):
        xception.build(tmp_path / "nowhere.safetensors")
