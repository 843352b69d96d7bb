"""Rows of a data set as training takes them."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from koa_hf.data.load import load_dataset
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.network.preprocess import Preprocessing
from train.loop import knee_images
from train.loop.knee_images import KneeImages


@pytest.fixture
def split(dataset_folder):
    return load_dataset(str(dataset_folder))["train"]


def test_what_is_kept_in_memory_is_the_same_at_any_size(split):
    kept, afresh = KneeImages(split, Preprocessing(96), keep=True), KneeImages(split, Preprocessing(96))
    for size in (96, 71, 96):
        kept.preprocessing = afresh.preprocessing = Preprocessing(size)
        for row in (0, 5, 0):
            ours, theirs = kept[row], afresh[row]
            assert torch.equal(ours["pixels"], theirs.pop("pixels"))
            assert {name: ours[name] for name in theirs} == theirs
    assert kept[5] is kept[5]


def test_all_are_decoded_before_an_epoch(split, monkeypatch):
    images = KneeImages(split, Preprocessing(96), keep=True)
    images.resize_to(80, Accelerator(cpu=True))
    monkeypatch.setattr(
        knee_images.radiograph, "read", lambda *_, **__: Radiograph(np.zeros((9, 9), np.uint8), "another")
    )
    for row in (0, len(images) - 1):
        assert images[row]["pixels"].shape == (80, 80)
        assert images[row]["pixels"].any()
        assert images[row] | {"pixels": None} == {"pixels": None, "label": split[row]["label"], "row": row}


def test_what_does_not_fit_into_memory_is_not_kept(dataset_folder):
    splits = list(load_dataset(str(dataset_folder)).values())
    assert knee_images.fit_in_memory(splits, 96, processes=1)
    assert not knee_images.fit_in_memory(splits, 96, processes=10**9)
    assert not knee_images.fit_in_memory(splits, 10**6, processes=1)
