"""int8: what is done to the network before it, and the guard that it has to pass."""

import shutil

import numpy as np
import pytest
import torch

from koa_hf import Grader
from koa_hf.errors import KoaError
from koa_hf.network import xception
from koa_hf.network.engines import TOLERANCES
from koa_hf.network.int8 import Int8, Int8Metadata, even_out
from koa_hf.network.model_folder import INT8_FILE
from train.fitting import quantisation
from train.loop import recipe

SIZE = 71
IMAGES = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
HOW = recipe.GradingOptions()


@torch.inference_mode()
def test_evening_out_the_channels_leaves_the_function_as_it_is(grader):
    network = xception.folded(grader.model)
    before, weights = network(IMAGES), network.block5.rep[1].pointwise.weight.clone()
    even_out(network, quantisation.equalisation_scales(network, IMAGES, 0.7))
    assert not torch.equal(network.block5.rep[1].pointwise.weight, weights)
    torch.testing.assert_close(network(IMAGES), before, rtol=1e-3, atol=1e-3)


def seen(grades: np.ndarray) -> quantisation.RuledOutput:
    return quantisation.RuledOutput(np.eye(5, dtype=np.float32)[grades] * 4, None)


def test_the_guard_passes_the_same_grades_and_fails_two_in_a_hundred_changed(grader):
    grades = np.arange(200) % 5
    same = quantisation.judge(seen(grades), seen(grades), grades, grader, HOW)
    assert same["passes"]
    assert (same["grades_changed"], same["largest_probability_change"], same["familiarity_changed"]) == (0, 0, None)
    changed = grades.copy()
    changed[:4] = (changed[:4] + 1) % 5
    other = quantisation.judge(seen(changed), seen(grades), grades, grader, HOW)
    assert other["grades_changed"] == 4
    assert not other["passes"]


def test_the_guard_fails_a_kappa_that_moved_though_few_grades_changed(grader):
    grades = np.arange(200) % 5
    changed = grades.copy()
    changed[0] = 4  # from KL 0
    verdict = quantisation.judge(seen(changed), seen(grades), grades, grader, HOW)
    assert verdict["grades_unchanged"] >= quantisation.LEAST_UNCHANGED
    assert verdict["kappa_change"] < -quantisation.LARGEST_KAPPA_CHANGE
    assert not verdict["passes"]


def test_a_network_in_int8_is_saved_loaded_and_computed(grader, model_folder, tmp_path, monkeypatch):
    pytest.importorskip("nncf")
    monkeypatch.setenv("KOA_CACHE", str(tmp_path / "cache"))
    size = grader.preprocessing.image_size
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network = xception.folded(grader.model)
    numbers = quantisation.quantise_network(
        network, images, quantisation.Attempt(kept=quantisation._through(7), equalised=0.7)
    )
    assert 0.3 < quantisation.share_in_int8(network, numbers, images[0]) < 0.5
    names = [name for name in numbers if name.endswith(".step")]
    assert any(name.startswith("block8.") for name in names)
    assert not any(name.startswith(f"block{i}.") for name in names for i in range(1, 8))

    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    weights = xception.fingerprint(grader.model)
    about = Int8Metadata(weights=weights, temperature=1.5, level=0.2, shift=(0,) * 5, unfamiliarity=1.1)
    Int8(numbers, about).save(folder)
    monkeypatch.setitem(TOLERANCES, "int8", 0)
    with pytest.raises(KoaError, match=r"in int8 \(its result differs from torch's\); choose another precision"):
        Grader.from_pretrained(folder, device="cpu", precision="int8")
    monkeypatch.setitem(TOLERANCES, "int8", 0.1)  # untrained: 0.06 without AVX512-VNNI; the bundled model has 0.015
    quick = Grader.from_pretrained(folder, device="cpu", precision="int8")
    assert (quick.engine, quick.precision) == ("openvino", "int8")
    expected, found = grader.forward(images).logits, quick.forward(images).logits
    assert 0 < float((found - expected).abs().max()) < 0.2 * float(expected.abs().max())
    Int8(numbers, about.model_copy(update={"shift": (1.0, 2.0, 3.0, 4.0, 5.0)})).save(folder)
    shifted = Grader.from_pretrained(folder, device="cpu", precision="int8").forward(images).logits
    torch.testing.assert_close(shifted - found, torch.arange(1.0, 6).expand(4, 5))

    for best, fast, chosen in (("fp32", True, "int8"), ("fp32", False, "fp32"), ("bf16", True, "bf16")):
        monkeypatch.setattr("koa_hf.grading.grader.choose_precision", lambda _, __, best=best: best)
        monkeypatch.setattr("koa_hf.grading.grader.is_fast_here", lambda fast=fast: fast)
        assert Grader.from_pretrained(folder, device="cpu", precision="auto").precision == chosen
    monkeypatch.undo()
    monkeypatch.setenv("KOA_CACHE", str(tmp_path / "cache"))

    Int8(numbers, about.model_copy(update={"weights": "others"})).save(folder)
    with pytest.raises(KoaError, match="made for other weights"):
        Grader.from_pretrained(folder, device="cpu", precision="int8")
    (folder / INT8_FILE).write_bytes(b"half")
    with pytest.raises(KoaError, match="is damaged"):
        Grader.from_pretrained(folder, device="cpu", precision="int8")
    (folder / INT8_FILE).unlink()
    with pytest.raises(KoaError, match="no int8 network"):
        Grader.from_pretrained(folder, device="cpu", precision="int8")
