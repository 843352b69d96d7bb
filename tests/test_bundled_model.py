"""The model that comes with the project."""

import numpy as np
import pytest
import yaml
from PIL import Image

from koa_hf import Grader, checksums
from koa_hf.grading.metrics import quadratic_weighted_kappa
from koa_hf.hub import contents
from koa_hf.imaging import phantom
from koa_hf.network.model_folder import BUNDLED_MODEL
from tests.processes import REPOSITORY

FOLDER = REPOSITORY / BUNDLED_MODEL


@pytest.fixture(scope="module")
def grader() -> Grader:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("KOA_MODEL", raising=False)
        return Grader.from_pretrained()


def test_it_is_what_is_used_when_no_model_is_named(grader):
    assert grader.revision == checksums.sha256(FOLDER / "model.safetensors")[:12]
    assert grader.rules.temperature
    assert grader.rules.sets.coverage == 0.9
    assert not grader.note


def test_it_is_whole_small_and_was_trained_in_every_layer():
    checksums.check(FOLDER)
    assert (FOLDER / "model.safetensors").stat().st_size < 45e6
    assert yaml.safe_load((FOLDER / "recipe.yaml").read_text())["stages"][-1]["train"] == "all"


def test_pushed_it_says_nothing_of_the_folders_around_the_one_it_was_trained_in():
    record = contents.of_model(FOLDER, "user/name").files["run.json"].decode()
    assert '"pretrained_weights": "legacy_xception.imagenet.safetensors"' in record
    assert "../" not in record
    assert "--start-from models/koa-xception" in record


def test_what_is_no_knee_x_ray_is_unfamiliar_to_it(grader):
    noise = np.random.default_rng(0).integers(0, 256, (224, 224), np.uint8)
    grey = np.full((224, 224), 128, np.uint8)
    for grading in grader.grade_batch([noise, grey, phantom.draw_knee(2, seed=0)]):
        assert not grading.familiar


def test_real_knees_are_familiar_to_it_and_graded_close_to_the_reader(grader, real_data):
    grades = np.repeat(range(5), 8)
    files = [file for grade in range(5) for file in sorted((real_data / "val" / str(grade)).glob("*.png"))[:8]]
    gradings = grader.grade_batch(files)
    assert np.mean([grading.familiar for grading in gradings]) > 0.9
    assert quadratic_weighted_kappa(np.array([grading.grade for grading in gradings]), grades) > 0.7
    negative = grader.grade(255 - np.asarray(Image.open(files[-1]).convert("L")))
    assert negative.inverted != gradings[-1].inverted
    assert negative.probabilities == pytest.approx(gradings[-1].probabilities, abs=1e-6)
