"""Rows of a data set as training takes them."""

import numpy as np
import torch

from koa_hf import dataset
from koa_hf.preprocess import Preprocessing
from koa_hf.radiograph import Radiograph
from train import data
from train.data import KneeImages


def test_what_is_kept_in_memory_is_decoded_once_and_the_same_at_any_size(dataset_folder, monkeypatch):
    split = dataset.load(str(dataset_folder))["train"]
    kept, afresh = KneeImages(split, Preprocessing(96), keep=True), KneeImages(split, Preprocessing(96))
    for size in (96, 71, 96):
        kept.preprocessing = afresh.preprocessing = Preprocessing(size)
        for row in (0, 5, 0):
            ours, theirs = kept[row], afresh[row]
            assert torch.equal(ours["pixels"], theirs.pop("pixels"))
            assert {name: ours[name] for name in theirs} == theirs
    assert kept[5] is kept[5]
    monkeypatch.setattr(data.radiograph, "read", lambda *_, **__: Radiograph(np.zeros((9, 9), np.uint8), "another"))
    kept.preprocessing = Preprocessing(80)
    assert kept[5]["pixels"].any()
    assert not afresh[5]["pixels"].any()


def test_what_does_not_fit_into_memory_is_not_kept(dataset_folder):
    splits = list(dataset.load(str(dataset_folder)).values())
    assert data.fit_in_memory(splits, 96, processes=1)
    assert not data.fit_in_memory(splits, 96, processes=10**9)
    assert not data.fit_in_memory(splits, 10**6, processes=1)
