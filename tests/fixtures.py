"""Fixtures that several test modules share. Everything is drawn or made on the spot; nothing needs a network."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from playwright.sync_api import expect
from timm.models.xception import Block, Xception

from koa_hf import Grader
from koa_hf.data.build import build_dataset
from koa_hf.imaging import phantom
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.network import xception
from koa_hf.network.preprocess import Preprocessing
from tests import processes
from tests.demo import running_demo
from tests.helpers import SMALL
from train.pictures.composites import Crop, compose

expect.set_options(timeout=30_000)  # milliseconds: the demo grades on the cores that the other tests use, too

PATIENTS = {"train": 20, "val": 8, "test": 8}
"""Patients of the phantom release; two knees each."""


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one process of the test session makes for all. Copy it before changing it."""
    folder = Path(os.environ["KOA_TESTS_SHARED"], name)
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what is left of one that failed
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def release_folder() -> Path:
    """A small release of phantoms, with auto_test. Shared by all tests: copy it before changing it."""
    return made_once("kneeKL224", lambda folder: phantom.write_release(folder, PATIENTS, seed=0, auto_test=True))


@pytest.fixture(scope="session")
def dataset_folder(release_folder) -> Path:
    """The data set built from `release_folder`. Shared by all tests: copy it before changing it."""
    return made_once("knees", lambda folder: build_dataset(release_folder, folder))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the public release named by the environment variable KOA_DATA."""
    if not (folder := os.environ.get("KOA_DATA")):
        pytest.skip("KOA_DATA does not name the folder of the public release (the one that holds train and val)")
    return Path(folder)


@pytest.fixture(scope="session")
def knee_png(tmp_path_factory) -> Path:
    """A drawn knee as a file."""
    path = tmp_path_factory.mktemp("knee") / "knee.png"
    Image.fromarray(phantom.draw_knee(3, seed=1)).save(path)
    return path


@pytest.fixture(scope="session")
def film_png(tmp_path_factory) -> Path:
    """A film with both drawn knees, the patient's right one (KL 3) on its left."""
    crops = [Crop(phantom.draw_knee(3, seed=1), "right"), Crop(phantom.draw_knee(1, seed=2, side="left"), "left")]
    film = compose("bilateral", crops, np.random.default_rng(4), size=420, varied=False)
    path = tmp_path_factory.mktemp("film") / "film.png"
    Image.fromarray(film.pixels).save(path)
    return path


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """A model folder with random weights, for 71-pixel images: its grades mean nothing, but they differ."""
    return made_once("koa-random", save_random_model)


def save_random_model(folder: Path) -> None:
    torch.manual_seed(0)
    model = xception.build(pretrained=False)
    preprocess = Preprocessing(image_size=71)
    knees = [preprocess(Radiograph(phantom.draw_knee(grade, seed=1), "drawn knee")) for grade in range(5)]
    xception.estimate_batch_norm_statistics(model, torch.stack(knees))
    torch.nn.init.normal_(model.fc.weight, std=0.1)
    xception.save_model(model, folder, image_size=71)


@pytest.fixture(scope="session")
def short_network(model_folder) -> Xception:
    """The network of `model_folder` with one convolution in place of three in blocks 4 to 10: a third less work.

    For tests that convert networks or train one in float64. Shared by all: copy it before changing it.
    """
    torch.manual_seed(0)
    network, _ = xception.load_model(model_folder)
    for number in range(4, 11):
        setattr(network, f"block{number}", Block(728, 728, reps=1))
    xception.estimate_batch_norm_statistics(network, torch.rand(5, 3, 71, 71) * 2 - 1)
    return network


@pytest.fixture(scope="session")
def grader(model_folder) -> Grader:
    """`model_folder`, loaded, computed by torch."""
    return Grader.from_pretrained(model_folder, device="cpu", engine="torch")


@pytest.fixture(scope="session")
def finished(dataset_folder) -> Path:
    """A training run that nothing disturbed: one process, whole batches, with the trunk cache."""

    def train(out: Path) -> None:
        options = ("--dataset", dataset_folder, "--output-dir", out, *SMALL)
        processes.run("train/run.py", *options, env=processes.client_environment(KOA_WEIGHTS=""))

    return made_once("undisturbed", train)


@pytest.fixture(scope="session")
def demo_url(model_folder) -> str:
    """The address of `python app.py`, running with `model_folder`."""
    with running_demo("--model", str(model_folder), "--engine", "torch", "--precision", "fp32") as demo:
        yield demo.url
