"""Fixtures that several test modules share. Everything is drawn or made on the spot; nothing needs a network."""

# ruff: noqa: E402 (imports come after the environment they read)

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# The Hugging Face libraries read these when they are imported, so they are set before any such import below.
_CACHE = tempfile.mkdtemp(prefix="koa-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["HF_HOME"] = _CACHE
os.environ["HF_DATASETS_CACHE"] = str(Path(_CACHE, "datasets"))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import pytest

from koa_hf import dataset, phantom

PATIENTS = {"train": 20, "val": 8, "test": 8}
"""Patients of the phantom release; two knees each."""


@pytest.fixture(scope="session")
def release_folder(tmp_path_factory) -> Path:
    """A small release of phantoms, with auto_test. Shared by all tests: copy it before changing it."""
    folder = tmp_path_factory.mktemp("release") / "kneeKL224"
    return phantom.write_release(folder, PATIENTS, seed=0, auto_test=True)


@pytest.fixture(scope="session")
def dataset_folder(release_folder, tmp_path_factory) -> Path:
    """The data set built from `release_folder`. Shared by all tests: copy it before changing it."""
    return dataset.build(release_folder, tmp_path_factory.mktemp("dataset") / "knees")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the public release named by the environment variable KOA_DATA."""
    if not (folder := os.environ.get("KOA_DATA")):
        pytest.skip("KOA_DATA does not name the folder of the public release (the one that holds train and val)")
    return Path(folder)
