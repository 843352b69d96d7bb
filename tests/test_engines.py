"""OpenVINO in torch's place: it computes the same, or it isn't used."""

import copy
import importlib.util
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from koa_hf.errors import KoaError
from koa_hf.network import engines, xception

SIZE = 71
IMAGES = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def network(short_network) -> torch.nn.Module:
    return short_network


def build(wanted: str, network: torch.nn.Module, precision: str = "fp32", layer: str | None = "block8"):
    return engines.build_engine(wanted, engines.Network(network, layer, SIZE), precision)


@pytest.mark.parametrize("layer", ["block8", None])
def test_it_computes_what_torch_computes(network, layer):
    with torch.no_grad():
        plain, plain_inner = xception.features(network, IMAGES, layer)
    for engine in ("torch", "openvino"):
        features, inner = build(engine, network, layer=layer)(IMAGES)
        torch.testing.assert_close(features, plain, rtol=1e-3, atol=1e-3)
        if layer is None:
            assert inner is plain_inner is None
        else:
            torch.testing.assert_close(inner, plain_inner, rtol=1e-3, atol=1e-3)


def test_any_number_of_images_from_any_number_of_threads(network):
    engine = build("auto", network)
    assert engine.name == "openvino"
    together = engine(IMAGES)[0]
    with ThreadPoolExecutor(3) as threads:
        alone = list(threads.map(lambda i: engine(IMAGES[i : i + 1])[0], [0, 1, 2] * 3))
    torch.testing.assert_close(torch.cat(alone[:3]), together, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat(alone[6:]), together, rtol=1e-4, atol=1e-4)


def test_it_is_converted_once(network, monkeypatch, tmp_path):
    monkeypatch.setenv("KOA_CACHE", str(tmp_path))
    before = build("openvino", network)(IMAGES)[0]
    monkeypatch.setattr(engines, "convert_to_openvino", lambda *_: pytest.fail("converted again"))
    torch.testing.assert_close(build("openvino", network)(IMAGES)[0], before)
    assert len(list(tmp_path.glob("*/network.bin"))) == 1


def test_where_it_computes_something_else_torch_does_it(network, monkeypatch, tmp_path):
    monkeypatch.setenv("KOA_CACHE", str(tmp_path))
    other = copy.deepcopy(network)
    torch.nn.init.zeros_(other.conv1.weight)
    convert = engines.convert_to_openvino
    monkeypatch.setattr(
        engines, "convert_to_openvino", lambda _, size: convert(engines._Features(other, "block8"), size)
    )
    assert build("auto", network).name == "torch"
    with pytest.raises(KoaError, match=r"its result differs from torch's\); choose the engine torch"):
        build("openvino", network)
    assert not list(tmp_path.iterdir())


def test_bfloat16_is_compared_too_and_once_and_where_it_is_off_float32_stays(network, monkeypatch, tmp_path):
    monkeypatch.setenv("KOA_CACHE", str(tmp_path))
    monkeypatch.setitem(engines.TOLERANCES, "bf16", 0.0)
    assert build("openvino", network).name == "openvino"
    assert build("auto", network, "bf16").name == "torch"
    monkeypatch.undo()
    monkeypatch.setenv("KOA_CACHE", str(tmp_path))
    assert build("auto", network, "bf16").name == "openvino"
    monkeypatch.setattr(engines, "check_agreement", lambda *_: pytest.fail("compared again"))
    assert build("auto", network, "bf16").name == "openvino"


def test_where_it_is_not_installed_or_can_not_be_kept_torch_does_it(network, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KOA_CACHE", str(tmp_path / "file"))
    assert build("auto", network).name == "torch"
    with pytest.raises(KoaError, match="OpenVINO can't run this network"):
        build("openvino", network)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert build("auto", network).name == "torch"
    with pytest.raises(KoaError, match="pip install openvino"):
        build("openvino", network)


def test_what_there_is_no_engine_for_is_refused(network):
    with pytest.raises(KoaError, match="choose one of auto, torch, openvino"):
        build("onnx", network)
    with pytest.raises(KoaError, match="fp32, bf16, not on cpu in fp16"):
        build("openvino", network, precision="fp16")


def test_batches_come_in_few_sizes():
    sizes = {images: engines.batch_sizes(images) for images in (1, 2, 7, 8, 22)}
    assert sizes == {1: [1], 2: [2], 7: [4, 2, 1], 8: [8], 22: [8, 8, 4, 2]}
